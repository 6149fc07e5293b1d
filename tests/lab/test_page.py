import json

import pytest
from typer.testing import CliRunner

from lab import page, queue, results
from lab.__main__ import app
from lab.items import ITEMS
from lab.items.ranks import Ranks


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
        assert "a table" in result.output
