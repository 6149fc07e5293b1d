import json

import pytest

from lab import figures, results, runs
from lab.comparison import Comparison
from lab.items import ITEMS, ranks
from lab.items.accuracy import Accuracy
from lab.items.ranks import Ranks
from lab.items.single import Single
from tests.lab.fakes import finish

COMPARISON = Comparison("sums", ("OPRD", "top-1"), steps=20, rates=(1e-3,), seeds=(0, 1))


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CACHE", tmp_path / "cache")
    for module in (results, figures, ranks):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    monkeypatch.setattr("lab.comparison.model_accuracy", lambda m: 1.0 if m.step > 1000 else 0.0)
    return tmp_path


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_every_item_plans_runs_once_and_no_more_of_them_where_it_is_quick(item, quick):
    planned = item.plan(quick)
    assert 0 < len(planned) == len(set(planned))
    assert len(item.plan(True)) <= len(item.plan(False))


@pytest.mark.parametrize(
    ("item", "file"),
    [
        (Single("one", "a title", COMPARISON), "one"),
        (Accuracy("all", "a title", (COMPARISON,)), "all-sums"),
    ],
)
def test_a_report_leaves_a_table_with_its_findings_and_a_picture(folders, item, file):
    while lacking := [run for run in item.plan(False) if not run.finished]:
        for run in lacking:
            finish(run, 0.0, 0.5, 0.9 if run.method == "OPRD" else 0.6)
    lines = item.report(False)
    found = json.loads((folders / f"{file}.json").read_text())
    assert found["methods"]["OPRD"]["final"]["mean"] == pytest.approx(0.9)
    assert found["table"] == lines[: len(found["table"])]
    assert any(line.startswith("| top-1 | 0.001 | 60.0%") for line in lines)
    assert found["machine"] and found["versions"]
    assert (folders / f"{file}.png").stat().st_size > 10_000


def test_the_ranks_of_a_bridge_are_those_of_its_report_without_this_machines_folders(
    folders, monkeypatch
):
    monkeypatch.setattr(ranks, "plot_bridge", lambda report, path: path.touch())
    item = Ranks("ranks", "a title", COMPARISON)
    (run,) = item.plan(False)
    at_rank = {"rank": 2, "cosine": 0.9, "r_squared": 0.8, "rank_error": 0.25}
    report = {
        "rows": {"fit": 1200, "held_out": 300},
        "advice": {"rank": 2},
        "curve": [at_rank],
        "provenance": {"student": {"model": "somewhere"}},
    }
    folder = run.folder / "bridge"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report))
    assert item.report(False)[-1] == "| 2 | 0.900 | 0.800 | 0.250 |"
    assert "somewhere" not in (folders / "ranks.json").read_text()
