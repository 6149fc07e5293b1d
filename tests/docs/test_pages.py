"""Every block and every command of the pages is run, here or by the test that is named for it."""

import pytest

from tests.docs import workshop
from tests.docs.workshop import ROOT, Workshop

DOCS = ROOT / "docs"
HERE = [
    "start.md",
    *(f"how-to/{path.name}" for path in sorted((DOCS / "how-to").glob("*.md"))),
]
# Pages whose blocks other tests run.
ELSEWHERE = {}


@pytest.mark.parametrize("page", HERE)
def test_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workshop.furnish(tmp_path)
    workshop.furnish_callers(tmp_path)
    shop = Workshop(monkeypatch)
    shop.run((DOCS / page).read_text())
    assert shop.elsewhere == []
