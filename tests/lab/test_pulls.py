import json

import pytest

from lab import results
from lab.items import pulls
from lab.items.pulls import Pulls
from tests.lab.fakes import TINY_PAIR


@pytest.mark.usefixtures("tiny_pair")
def test_bridges_that_fit_both_models_are_fitted_and_what_is_shown_comes_from_the_file(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    (tmp_path / "results").mkdir()
    item = Pulls("pulls", "a title", (TINY_PAIR, "one that a quick report leaves out"), rollouts=80)
    item.report(quick=True)
    found = json.loads(results.result_file("pulls.json", quick=True).read_text())
    of = found["pairs"][TINY_PAIR]
    # Both models are 16 wide.
    assert list(of) == [name for name in pulls.BRIDGES if name != "pca, rank 64"]
    assert found["rollouts"] == 20
    assert {name: row["unreachable"] is None for name, row in of.items()} == {
        name: name.startswith("pca") for name in of
    }
    lines = item.table(found)
    assert lines[-1].startswith(f"| {TINY_PAIR} | heads, fisher | ")
    assert len(lines) == 4 + len(of)


@pytest.mark.parametrize(("after", "nearer"), [(0.5, True), (1.5, False)])
def test_heads_lead_nearer_where_the_divergence_is_less_after_them(after, nearer):
    item = Pulls("pulls", "a title", ("a", "b"), rollouts=80)
    found = {"pairs": {"a": {pulls.SHOWN: {"before": 1.0, "after": after}}}}
    assert item.verdicts(found) == {"a: heads, centered lead nearer": nearer}
