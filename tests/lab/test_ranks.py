import json

import pytest

from lab import results
from lab.items import ranks
from lab.items.ranks import Ranks, fit_report
from tests.lab.fakes import TINY_PAIR


def test_a_report_is_that_of_a_fit_on_the_prompts_that_runs_begin_with(tiny_pair, monkeypatch):
    asked = []
    examples = tiny_pair.task_module.examples

    def watched(*arguments, **options):
        asked.append(found := examples(*arguments, **options))
        return found

    fitted_on = []
    fit = ranks.fit_bridge

    def watched_fit(student, teacher, rollouts, settings, **options):
        fitted_on.extend(rollouts)
        return fit(student, teacher, rollouts, settings, **options)

    # The models are there: what is asked for from here on are prompts.
    _ = tiny_pair.student.path()
    monkeypatch.setattr(tiny_pair.task_module, "examples", watched)
    monkeypatch.setattr(ranks, "fit_bridge", watched_fit)
    found = fit_report(tiny_pair, rollouts=20)
    assert asked == [examples("train", 300, seed=1000)[:20]]
    assert len(fitted_on) == 20
    assert (found["rollouts"]["fit"], found["rollouts"]["held_out"]) == (16, 4)


@pytest.mark.parametrize(("quick", "count"), [(False, 80), (True, 20)])
@pytest.mark.usefixtures("tiny_pair")
def test_the_ranks_of_a_bridge_are_written_and_drawn(tmp_path, monkeypatch, quick, count):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    item = Ranks("ranks", "a title", TINY_PAIR, rollouts=80)
    item.report(quick)
    text = results.result_file("ranks.json", quick).read_text()
    found = json.loads(text)
    assert str(tmp_path) not in text
    assert sum(found["rollouts"][part] for part in ("fit", "held_out")) == count
    assert results.result_file("ranks.png", quick).stat().st_size > 10_000
    # The claims and the table are made from what was written.
    assert set(item.verdicts(found)) == {"the cosine is higher at rank 8 than at rank 1"}
    assert item.table(found)[-1].startswith("| 16 | ")
    for layer in found["layers"]:
        assert len(layer["eigenvalues"]) == len(layer["component_r_squared"]) == 16
