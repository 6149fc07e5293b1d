import json

import pytest
from typer.testing import CliRunner

from lab import page
from lab.__main__ import app
from lab.items import ITEMS


def test_the_tables_of_the_page_are_those_of_the_results():
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.filled(text) == text


def test_a_table_without_results_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError):
        page.filled("<!-- none -->\n<!-- end -->")


def test_a_table_is_replaced_by_its_results(tmp_path, monkeypatch):
    found = {"table": ["| method |", "| OPRD |"]}
    (tmp_path / "some-item.json").write_text(json.dumps(found))
    monkeypatch.setattr(page, "RESULTS", tmp_path)
    text = page.filled("before\n<!-- some-item -->\nold\n<!-- end -->\nafter")
    assert text == "before\n<!-- some-item -->\n| method |\n| OPRD |\n<!-- end -->\nafter"


def test_the_list_names_every_item_with_what_it_reproduces():
    lines = CliRunner().invoke(app, ["list"]).output.splitlines()
    assert [line.split()[0] for line in lines] == list(ITEMS)


def test_an_unknown_item_is_refused_with_the_known_ones():
    result = CliRunner().invoke(app, ["run", "nothing"])
    assert result.exit_code == 2
    assert "accuracy" in result.output
