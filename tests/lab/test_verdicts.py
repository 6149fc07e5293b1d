import json

import pytest
from typer.testing import CliRunner

from lab import results, verdicts
from lab.__main__ import app
from lab.expectations import Above, Expectation, Verdict
from lab.items import ITEMS
from lab.items.compared import Compared
from lab.items.expected import EXPECTED
from tests.lab.test_expectations import CLEAR
from tests.lab.test_items import COMPARISON

BARS = [(name, expected.bar) for name, item in ITEMS.items() for expected in item.expects]


def test_every_expectation_belongs_to_an_item():
    assert set(EXPECTED) <= set(ITEMS)


@pytest.mark.parametrize(("name", "bar"), [(n, b) for n, b in BARS if isinstance(b, Above)])
def test_expectations_compare_methods_that_their_item_compares(name, bar):
    item = ITEMS[name]
    assert isinstance(item, Compared)
    assert {bar.first, bar.second} <= set(item.full.methods)


def test_the_table_counts_and_shows_every_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    (tmp_path / "one.json").write_text(json.dumps(CLEAR))
    expects = (
        Expectation("Table 1", "a beats b", Above("a", "b")),
        Expectation("Table 2", "b beats a", Above("b", "a")),
    )
    items = {
        "one": Compared("one", "a title", COMPARISON, expects=expects),
        "two": Compared("two", "a title", COMPARISON, expects=expects[:1]),
    }
    lines = verdicts.table(items)
    assert lines[0] == "1 confirmed, 1 not confirmed, 1 not tested."
    assert lines[4].startswith("| Table 1 | a beats b | accuracy at the end: a above b | confirmed")
    assert "| not confirmed | -20.0 [" in lines[5]
    assert lines[6].endswith("| not tested | its runs are not made yet | `two` |")


def test_the_command_prints_the_verdicts_of_the_committed_results():
    printed = CliRunner().invoke(app, ["verdicts"]).output.splitlines()
    assert printed == verdicts.table()
    judged = {of.verdict for *_, of, _ in verdicts.graded()}
    assert judged >= {Verdict.CONFIRMED, Verdict.NOT_CONFIRMED}
