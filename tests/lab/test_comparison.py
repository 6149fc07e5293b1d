import json
from dataclasses import replace

import pytest

from lab import runs
from lab.comparison import Comparison
from lab.pairs import Moment
from lab.reinforced import Reinforced
from lab.table import table
from tests.lab.fakes import finish, scores

RATES = (5e-4, 1e-3, 2e-3)


@pytest.fixture
def comparison(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CACHE", tmp_path)
    monkeypatch.setattr(
        Moment, "scores", lambda self, samples: scores(1.0 if self.step > 1000 else 0.0)
    )
    return Comparison("sums", ("OPRD", "top-1"), steps=20, rates=RATES, seeds=(0, 1))


def finish_grid(comparison, method, *tuning, reported=0.5):
    for rate, share in zip(RATES, tuning, strict=True):
        finish(comparison.run(method, rate, 0), 0.1, 0.3, reported, tuning=share)


def of_seed(comparison, seed):
    return [(run.method, run.learning_rate) for run in comparison.plan() if run.seed == seed]


def test_the_grid_comes_first_and_then_each_method_at_its_best_rate(comparison):
    assert len(of_seed(comparison, 0)) == 6
    assert of_seed(comparison, 1) == []
    finish_grid(comparison, "OPRD", 0.6, 0.8, 0.7)
    assert of_seed(comparison, 1) == [("OPRD", 1e-3)]
    seeds = [run.seed for run in comparison.plan()]
    assert seeds == sorted(seeds)


def test_rates_that_nearly_tie_are_compared_over_all_seeds(comparison):
    comparison = replace(comparison, ladder=RATES)
    finish_grid(comparison, "OPRD", 0.6, 0.8, 0.795)
    assert of_seed(comparison, 1) == [("OPRD", 1e-3), ("OPRD", 2e-3)]
    with pytest.raises(ValueError, match="not finished"):
        comparison.best("OPRD")
    finish(comparison.run("OPRD", 1e-3, 1), 0.1, 0.3, 0.5, tuning=0.7)
    finish(comparison.run("OPRD", 2e-3, 1), 0.1, 0.3, 0.5, tuning=0.8)
    assert {run.learning_rate for run in comparison.best("OPRD")} == {2e-3}


@pytest.mark.parametrize(("tuning", "beyond"), [((0.8, 0.7, 0.6), 2e-4), ((0.6, 0.7, 0.8), 5e-3)])
def test_a_grid_goes_on_beyond_a_best_rate_at_its_edge_until_that_gets_worse(
    comparison, tuning, beyond
):
    finish_grid(comparison, "OPRD", *tuning)
    assert set(comparison.grid("OPRD")) == {*RATES, beyond}
    finish(comparison.run("OPRD", beyond, 0), 0.1, 0.3, 0.5, tuning=0.5)
    assert set(comparison.grid("OPRD")) == {*RATES, beyond}
    assert len(of_seed(comparison, 1)) == 1


@pytest.mark.parametrize(
    ("tuning", "beyond"),
    [
        ((0.795, 0.8, 0.6), {2e-4}),
        ((0.8, 0.8, 0.6), {2e-4}),
        ((0.6, 0.8, 0.795), {5e-3}),
        ((0.795, 0.8, 0.795), {2e-4, 5e-3}),
        ((0.7, 0.8, 0.7), set()),
    ],
)
def test_a_grid_goes_on_beyond_every_edge_that_may_be_the_best(comparison, tuning, beyond):
    finish_grid(comparison, "OPRD", *tuning)
    assert set(comparison.grid("OPRD")) == {*RATES, *beyond}


def test_a_grid_of_halves_goes_on_beyond_its_best_rate_alone_the_lowest_of_a_tie(comparison):
    halves = replace(comparison, grid_steps=10)
    for rate, share in zip(RATES, (0.795, 0.8, 0.8), strict=True):
        finish(halves.run("OPRD", rate, 0, of_grid=True), 0.1, 0.3, 0.5, tuning=share)
    assert set(halves.grid("OPRD")) == set(RATES)
    assert of_seed(halves, 1) == [("OPRD", 1e-3)]


def test_a_grid_ends_where_the_ladder_ends(comparison):
    finish_grid(comparison, "OPRD", 0.6, 0.7, 0.8)
    assert of_seed(replace(comparison, ladder=RATES), 1) == [("OPRD", 2e-3)]


def test_the_best_rate_is_that_of_the_tuning_problems_and_not_of_the_reported_ones(comparison):
    for rate, reported in zip(RATES, (0.5, 0.6, 0.9), strict=True):
        tuning = {5e-4: 0.4, 1e-3: 0.8, 2e-3: 0.6}[rate]
        for seed in (0, 1):
            finish(comparison.run("top-1", rate, seed), 0.1, 0.3, reported, tuning=tuning)
    assert {run.learning_rate for run in comparison.best("top-1")} == {1e-3}


def test_a_single_rate_holds_for_all_methods(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CACHE", tmp_path)
    comparison = Comparison("sums", ("OPRD", "top-1"), rates=(1e-3,))
    assert len(comparison.plan()) == 2 * 3


def test_the_quick_form_takes_a_fifth_of_the_steps_of_one_seed_at_the_rates_that_were_found(
    comparison,
):
    runs = comparison.quick({"OPRD": 2e-3}).plan()
    assert [(run.method, run.learning_rate, run.seed, run.steps) for run in runs] == [
        ("OPRD", 2e-3, 0, 4),
        ("top-1", 1e-3, 0, 4),
    ]
    # At its end at the latest, so that a curve has two points.
    assert {run.eval_every for run in runs} == {4}


def test_the_quick_form_leaves_out_what_no_claim_is_about(comparison):
    claimed = replace(
        comparison, methods=("OPRD", "last layer", "top-1"), claims=(("OPRD", "top-1"),)
    )
    assert claimed.quick({}).methods == ("OPRD", "top-1")


def test_the_best_rate_of_an_unfinished_grid_is_refused(comparison):
    with pytest.raises(ValueError, match="'OPRD' on 'sums' are not finished"):
        comparison.best("OPRD")


def test_findings_say_final_accuracy_paired_differences_and_the_steps_to_the_target(comparison):
    for method, top, tuning in (("OPRD", 1.0, (0.9, 1.0, 0.9)), ("top-1", 0.8, (0.1, 0.2, 0.1))):
        finish_grid(comparison, method, *tuning, reported=top)
        finish(comparison.run(method, 1e-3, 1), 0.0, 0.5, top)
    found = comparison.findings()
    assert found["target"] == pytest.approx(0.9)
    assert found["rollouts"] == 64
    assert found["methods"]["OPRD"]["steps_to_target"][1] == pytest.approx(18)
    assert found["methods"]["top-1"]["difference"]["mean"] == pytest.approx(-0.2)
    lines = table(json.loads(json.dumps(found)))
    row = next(line for line in lines if line.startswith("| top-1 | 0.001"))
    assert "| 80.0% [80.0, 80.0] | -20.0 [-20.0, -20.0] | 100.0% | 0.50 | 9.0 | not reached" in row
    # Areas of 0.425 and 0.5 less 0.375 and 0.45, curves from 0.1 and 0.0 over 0.3 and 0.5.
    assert row.endswith("| -5.0 [-5.0, -5.0] |")
    assert len({line.count("|") for line in lines[2:7]}) == 1
    assert "| top-1 | 10.0% | 20.0% | 10.0% |" in lines


def test_findings_name_every_machine_that_recorded_a_run_that_of_a_worse_rate_too(comparison):
    machines = [{"processor": name} for name in "abab"]
    shares = [(2e-3, 0, 0.8), (1e-3, 0, 0.7), (2e-3, 1, 0.8), (5e-4, 0, 0.5)]
    comparison = replace(comparison, methods=("OPRD",), ladder=RATES)
    for (rate, seed, tuning), machine in zip(shares, machines, strict=True):
        finish(comparison.run("OPRD", rate, seed), 0.1, 0.3, 0.5, tuning=tuning, machine=machine)
    named = comparison.findings()["run_machines"]
    assert sorted(machine["processor"] for machine in named) == ["a", "b"]


def test_findings_name_the_models_and_the_rewards_of_a_teacher_that_was_reinforced(
    tmp_path, monkeypatch
):
    curve = {"step": [10, 20], "reward": [0.4, 0.5]}
    monkeypatch.setattr(runs, "CACHE", tmp_path)
    for model in (Moment, Reinforced):
        monkeypatch.setattr(model, "scores", lambda self, samples: scores(1.0))
    monkeypatch.setattr(Reinforced, "rewards", lambda self: curve)
    found = {}
    for pair in ("sums", "sums, reinforced"):
        comparison = Comparison(pair, ("OPRD",), steps=20, rates=(1e-3,), seeds=(0,))
        finish(comparison.plan()[0], 0.1, 0.3, 0.5)
        found[pair] = comparison.findings()
    assert found["sums, reinforced"]["rewards"] == curve
    assert found["sums, reinforced"]["models"]["teacher"]["at"] == 300
    assert found["sums"]["models"]["student"]["step"] == 250
    assert not {"rewards", "run_machines"} & found["sums"].keys()


def test_differences_are_also_paired_by_problem(comparison):
    for method, top in (("OPRD", 1.0), ("top-1", 0.8)):
        finish_grid(comparison, method, 0.1, 0.9, 0.1, reported=top)
        finish(comparison.run(method, 1e-3, 1), 0.0, 0.5, top)
    found = json.loads(json.dumps(comparison.findings()))
    assert found["methods"]["top-1"]["by_problem"]["value"] == pytest.approx(-0.2)
    # Of two problems little is known.
    assert "Paired by problem, minus OPRD, points: top-1 -20.0 [-87.4, +81.0]." in table(found)
    assert "problems" not in found["methods"]["OPRD"]["scores"][0] | found["teacher"]


def test_a_grid_of_shorter_runs_decides_alone_and_none_of_them_is_reported(comparison):
    halved = replace(comparison, grid_steps=10)
    for rate, tuning in zip(RATES, (0.6, 0.8, 0.795), strict=True):
        run = halved.run("OPRD", rate, 0, of_grid=True)
        assert run.steps == run.eval_every == 10
        finish(run, 0.1, 0.3, 0.5, tuning=tuning)
    later = [r for r in halved.plan() if r.method == "OPRD" and r.steps == 20]
    assert [(run.learning_rate, run.seed) for run in later] == [(1e-3, 0), (1e-3, 1)]
    with pytest.raises(ValueError, match="not finished"):
        halved.best("OPRD")
    for run in later:
        finish(run, 0.1, 0.3, 0.5)
    assert halved.best("OPRD") == later
    assert {run.steps for run in halved.quick({}).plan()} == {4}


def test_a_length_for_a_grid_of_one_rate_is_refused():
    with pytest.raises(ValueError, match="there is one rate"):
        Comparison("sums", ("OPRD",), rates=RATES[:1], grid_steps=10)


def test_a_method_that_finds_its_rate_has_no_grid_and_says_what_it_found(comparison):
    found_by_itself = replace(comparison, methods=("OPRD, rate found",))
    runs = found_by_itself.plan()
    assert [run.seed for run in runs] == [0, 1]
    assert {run.settings["learning_rate"] for run in runs} == {"auto"}
    for run, rate in zip(runs, (5e-4, 6e-4), strict=True):
        finish(run, 0.1, 0.3, 0.5, rate_found=rate)
    assert "| OPRD, rate found | found: 0.0005, 0.0006 |" in "".join(
        table(found_by_itself.findings())
    )


def curves(*areas):
    return {"curves": [{"steps": [0, 1], "accuracy": [area, area]} for area in areas]}


@pytest.mark.parametrize(
    ("first", "second", "holds"),
    [
        ((0.9, 0.8), (0.6, 0.5), True),
        ((0.6, 0.5), (0.9, 0.8), False),
        ((0.9, 0.5), (0.6, 0.6), None),  # The seeds disagree.
        ((0.9,), (0.6,), True),
        ((0.6,), (0.9,), False),
    ],
)
def test_a_claim_is_settled_by_areas_paired_by_seed_where_the_seeds_agree(first, second, holds):
    claimed = Comparison("sums", ("OPRD", "top-1"), claims=(("OPRD", "top-1"),))
    found = {"methods": {"OPRD": curves(*first), "top-1": curves(*second)}}
    expected = {} if holds is None else {"OPRD above top-1 on the way": holds}
    assert claimed.verdicts(found) == expected


def test_a_claim_may_be_about_the_end():
    ends = {"OPRD": (0.9, 0.8), "top-1": (0.6, 0.5)}
    methods = {
        method: {**curves(0.1, 0.1), "scores": [{"accuracy": end} for end in of]}
        for method, of in ends.items()
    }
    claimed = Comparison("sums", ("OPRD", "top-1"), claims=(("OPRD", "top-1"),), by="end")
    assert claimed.verdicts({"methods": methods}) == {"OPRD above top-1 at the end": True}


def test_a_choice_of_rates_without_tuning_problems_is_refused():
    with pytest.raises(ValueError, match="needs a rate"):
        Comparison("sums", ("OPRD",), rates=RATES, evaluated_quickly=True)
    assert Comparison("sums", ("OPRD",), rates=RATES[:1], evaluated_quickly=True)


@pytest.mark.parametrize("unknown", [{"methods": ("OPD",)}, {"claims": (("OPRD", "OPD"),)}])
def test_an_unknown_method_is_refused(unknown):
    with pytest.raises(ValueError, match="OPD"):
        Comparison("sums", **{"methods": ("OPRD",), **unknown})
