import json
import re

import pytest

from lab import results, runs
from lab.comparison import Comparison
from lab.items import ITEMS, QUICK, plan
from lab.items.compared import DIAGNOSTICS, Compared
from lab.items.long_responses import LongResponses
from lab.pairs import PAIRS, Moment
from lab.scores import held_out
from oprd import OPRDConfig
from tests.lab.fakes import finish, scores

COMMITTED = results.RESULTS
# Items whose runs nobody has made yet.
AWAITED = {
    "merging-later",
    "self-distillation",
}
MADE = {name: item for name, item in ITEMS.items() if name not in AWAITED}
COMPARISON = Comparison("sums", ("OPRD", "top-1"), steps=20, rates=(1e-3,), seeds=(0, 1))


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(runs, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(
        Moment, "scores", lambda self, samples: scores(1.0 if self.step > 1000 else 0.0)
    )
    return tmp_path


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_every_item_plans_runs_once_and_each_is_a_legal_setting(item, quick):
    planned = item.plan(quick)
    assert len(planned) == len(set(planned))
    for run in planned:
        assert OPRDConfig(output_dir="unused", use_cpu=True, bf16=False, **run.settings)


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_quick_runs_have_one_seed_and_fewer_steps(item):
    quick, whole = item.plan(True), item.plan(False)
    assert {run.seed for run in quick} <= {0}
    assert sum(run.steps for run in quick) <= sum(run.steps for run in whole) / 3


def test_one_item_of_every_kind_is_quick_and_the_committed_results_settle_a_claim_of_it():
    # The models of long responses take as long as all others together.
    assert {type(ITEMS[name]) for name in QUICK} | {LongResponses} == set(map(type, ITEMS.values()))
    assert list(QUICK) == [name for name in ITEMS if name in QUICK]
    found = {name: json.loads((COMMITTED / f"{name}.json").read_text()) for name in QUICK}
    # On models as small as its quick case an update takes the same time whatever its loss.
    assert [name for name in QUICK if not ITEMS[name].verdicts(found[name])] == ["cost"]
    assert "sums, reinforced" in {run.pair for run in plan(QUICK, quick=True)}


def test_runs_that_items_share_are_planned_once_and_the_first_items_come_first():
    together = plan(["accuracy-sums", "positions", "cheaper"], quick=False)
    assert len(together) == len(set(together))
    assert together[: len(first := ITEMS["accuracy-sums"].plan(False))] == first
    assert set(together) == {*first, *ITEMS["cheaper"].plan(False)}


@pytest.mark.parametrize("panels", [None, DIAGNOSTICS])
def test_a_report_leaves_a_table_with_its_findings_and_a_picture(folders, panels):
    item = Compared("one", "a title", COMPARISON, panels)
    for run in item.plan(False):
        finish(run, 0.0, 0.5, 0.9 if run.method == "OPRD" else 0.6)
    item.report(False)
    found = json.loads((folders / "one.json").read_text())
    lines = item.table(found)
    assert found["methods"]["OPRD"]["final"]["mean"] == pytest.approx(0.9)
    assert set(found["logged"]) == set(panels or {})
    if panels:
        curve = found["logged"]["rep_cosine"]["top-1"][0]
        assert curve == {"steps": [0, 10, 20], "values": [0.0, 0.5, 0.6]}
    assert any(line.startswith("| top-1 | 0.001 | 60.0%") for line in lines)
    assert found["machine"] and found["versions"]
    assert (folders / "one.png").stat().st_size > 10_000


def test_a_timed_report_says_how_long_steps_took_and_when_the_target_was_reached(folders):
    item = Compared("one", "a title", COMPARISON, timed=True)
    for run in item.plan(False):
        finish(run, 0.0, 0.5, 0.95 if run.method == "OPRD" else 0.6)
    item.report(False)
    found = json.loads((folders / "one.json").read_text())
    lines = item.table(found)
    # Steps of two seconds; 90% of the gap lies between step 10 (50%) and 20 (95%).
    assert found["seconds"]["OPRD"]["to_target"] == [pytest.approx(2 * (10 + 10 * 40 / 45))] * 2
    assert "| OPRD | 2.0 | 1.0 | 0.4 | 0.6 | 40 | 38 |" in lines
    assert "| top-1 | 2.0 | 1.0 | 0.4 | 0.6 | 40 | not reached |" in lines


def test_a_quick_report_takes_the_committed_rates_and_leaves_the_committed_files_alone(folders):
    whole = {"methods": {"OPRD": {"learning_rate": 2e-3}}}
    (folders / "one.json").write_text(json.dumps(whole))
    item = Compared("one", "a title", COMPARISON)
    assert {run.method: run.learning_rate for run in item.plan(True)} == {
        "OPRD": 2e-3,
        "top-1": 1e-3,
    }
    for run in item.plan(True):
        finish(run, 0.0, 0.5, 0.9)
    item.report(True)
    assert json.loads((folders / "one.json").read_text()) == whole
    assert (folders / "quick" / "one.png").exists()


def test_a_settled_claim_that_quick_results_do_not_find_is_a_difference():
    whole, quick = {"a": True, "b": True, "c": False}, {"a": True, "b": False, "new": False}
    assert results.differences(quick, whole) == ["b", "c"]


def test_an_item_without_results_is_one_that_is_awaited():
    assert {name for name in ITEMS if not (COMMITTED / f"{name}.json").exists()} == AWAITED


@pytest.mark.parametrize("item", MADE.values(), ids=MADE)
def test_the_table_and_the_verdicts_of_committed_results_come_from_their_file(item, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", COMMITTED)
    found = results.read(item.name, quick=False)
    assert any(line.startswith("|") for line in item.table(found))
    assert all(isinstance(holds, bool) for holds in item.verdicts(found).values())


# Made before results named how many samples a problem they have.
OLDER = {"accuracy-sums", "bases", "bridge-alone", "bridges-kl", "cheaper", "off-policy"}
COMPARED = {name: item for name, item in MADE.items() if isinstance(item, Compared)}


@pytest.mark.parametrize("item", COMPARED.values(), ids=COMPARED)
def test_committed_results_are_of_the_comparison_that_their_command_would_make(item, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", COMMITTED)
    found, full = results.read(item.name, quick=False), item.full
    assert (found["pair"], found["steps"]) == (full.pair, full.steps)
    assert (tuple(found["seeds"]), tuple(found["methods"])) == (full.seeds, full.methods)
    for method, row in found["methods"].items():
        run = full.run(method, row["learning_rate"], 0)
        assert ("samples" not in found) == (item.name in OLDER)
        assert found.get("samples", run.samples) == run.samples
        if "problems" in found:
            task = PAIRS[full.pair].task
            asked = {part: len(held_out(task, part).problems) for part in found["problems"]}
            assert found["problems"] == asked
        settings = json.loads(json.dumps(run.all_settings))
        assert {name: settings[name] for name in row["settings"]} == row["settings"]


@pytest.mark.parametrize("item", COMPARED.values(), ids=COMPARED)
def test_the_best_of_several_samples_solves_no_less_than_one(item, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", COMMITTED)
    found = results.read(item.name, quick=False)
    rows = [found["teacher"], found["student"]]
    rows += [seed for method in found["methods"].values() for seed in method["scores"]]
    assert all(row["best"] >= row["accuracy"] for row in rows)


def test_committed_results_name_no_folder_of_the_machine_that_made_them():
    for file in (*COMMITTED.glob("*.json"), *(COMMITTED / "runs").rglob("*.json*")):
        text = file.read_text(encoding="utf-8")
        assert not re.search(r'"(/|~|[A-Za-z]:\\)', text), file.name
