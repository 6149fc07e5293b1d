import json

import pytest
from typer.testing import CliRunner

from lab import __main__ as command
from lab import page, queue, results
from lab.__main__ import app
from lab.items import ITEMS, QUICK
from lab.items.ranks import Ranks
from lab.table import reached


def test_the_tables_of_the_page_are_those_of_the_results():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text) == text


def test_a_table_without_results_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError):
        page.filled("<!-- ranks -->\n<!-- end -->")


def test_a_table_is_replaced_by_its_results(tmp_path, monkeypatch):
    at = {"rank": 2, "cosine": 0.9, "r_squared": 0.8, "rank_error": 0.25}
    found = {"rows": {"fit": 1200, "held_out": 300}, "advice": {"rank": 2}, "curve": [at]}
    (tmp_path / "ranks.json").write_text(json.dumps(found))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    text = page.filled("before\n<!-- ranks -->\nold\n<!-- end -->\nafter")
    table = "\n".join(ITEMS["ranks"].table(found))
    assert text == f"before\n<!-- ranks -->\n{table}\n<!-- end -->\nafter"


def test_the_list_names_every_item_with_what_it_reproduces():
    lines = CliRunner().invoke(app, ["list"]).output.splitlines()
    assert [line.split()[0] for line in lines] == list(ITEMS)


def test_an_unknown_item_is_refused_with_the_known_ones():
    result = CliRunner().invoke(app, ["run", "nothing"])
    assert result.exit_code == 2
    assert "accuracy" in result.output


def test_quick_results_that_contradict_the_committed_ones_end_with_an_error(tmp_path, monkeypatch):
    def curve(top):
        return [{"rank": rank, "cosine": cosine} for rank, cosine in ((1, 0.5), (8, top))]

    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.setattr(queue, "finish", lambda plan, workers: None)
    monkeypatch.setattr(queue, "each", lambda make, names, workers: list(map(make, names)))
    monkeypatch.setattr(Ranks, "table", lambda self, found: ["a table"])
    (tmp_path / "quick").mkdir()
    (tmp_path / "ranks.json").write_text(json.dumps({"curve": curve(0.9)}))
    for top, code in ((0.8, 0), (0.4, 1)):
        found = json.dumps({"curve": curve(top)})
        written = tmp_path / "quick" / "ranks.json"
        monkeypatch.setattr(
            Ranks, "report", lambda self, quick, to=written, it=found: to.write_text(it)
        )
        result = CliRunner().invoke(app, ["run", "ranks", "--quick"])
        assert result.exit_code == code, result.output
        assert "a table\n\n- the cosine is higher at rank 8 than at rank 1: " in result.output
        assert ("that were found again: 1 of 1." in result.output) == (code == 0)


@pytest.mark.parametrize(
    ("arguments", "made"),
    [(["--quick"], QUICK), (["ranks", "--quick"], ("ranks",)), ([], tuple(ITEMS))],
)
def test_without_names_quick_runs_are_of_a_selection_and_whole_ones_of_everything(
    monkeypatch, arguments, made
):
    planned = []
    monkeypatch.setattr(queue, "finish", lambda plan, workers: planned.append(plan.args[0]))
    monkeypatch.setattr(queue, "each", lambda make, names, workers: None)
    monkeypatch.setattr(command, "report", lambda name, quick: None)
    monkeypatch.setattr(command, "read", lambda name, quick: {})
    for kind in {type(item) for item in ITEMS.values()}:
        monkeypatch.setattr(kind, "table", lambda self, found: [])
        monkeypatch.setattr(kind, "verdicts", lambda self, found: {})
    result = CliRunner().invoke(app, ["run", *arguments])
    assert result.exit_code == 0, result.output
    assert [tuple(names) for names in planned] == [made]
    left = [name for name in ITEMS if name not in QUICK]
    assert ("Left out" in result.output) == (arguments == ["--quick"])
    assert arguments != ["--quick"] or ", ".join(left) in result.output


# Names of the page on results by those of the lab.
METHODS = {
    "OPRD, plain states (the paper's)": "OPRD",
    "OPRD, states at unit length (the default)": "OPRD, unit length",
    "forward KL of the whole vocabulary": "forward KL",
    "reverse KL of the whole vocabulary": "reverse KL",
    "top-4, as the paper runs it": "top-4 of the paper's runs",
    "top-4, renormalised (Eq. 5)": "top-4 of Eq. 5",
    "sampled token": "top-1",
}


@pytest.mark.parametrize(("item", "column"), [("accuracy-sums", 1), ("accuracy-sorting", 3)])
def test_the_accuracies_of_the_page_on_results_are_those_of_the_lab(item, column):
    shown_at = (page.PAGE.parent / "results.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown_at.splitlines()]
    shown = {row[0]: row[column : column + 2] for row in rows if row and row[0] in METHODS}
    assert set(shown) == set(METHODS)
    for name, (accuracy, steps) in shown.items():
        found = results.read(item, quick=False)["methods"][METHODS[name]]
        assert accuracy == results.Estimate(**found["final"]).percent()
        taken = reached(found["steps_to_target"])
        assert steps == (taken if taken.isdigit() else "")
