"""Every block and every command of the pages is run, here or by the test that is named for it."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from docs.generate import sources
from lab.items import ITEMS
from oprd.cli.main import app
from oprd.core.objective import STATE_LOSSES
from tests.docs import workshop
from tests.docs.workshop import ROOT, SHOWN, Workshop, blocks

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
# Pages that are run here, with what stands for what in their blocks.
HERE: dict[str, dict[str, str]] = {
    "README.md": {"--tasks additions": "--tasks additions --output_dir evaluated"},
    "docs/start.md": {},
    "docs/bridge.md": {"path/to/bridge.safetensors": "runs/bridge/bridge.safetensors"},
    "docs/evaluation.md": {
        "teacher/ ": "teacher ",
        "student-before/ ": "student ",
        "student-after/ ": "other ",
        '"student-before"': '"student"',
        "(model, tokenizer, ": '("other", None, ',
        "limit=100": "limit=2",
        "samples=4": "samples=4, max_new_tokens=8",
        "aime24,math500": "additions,arithmetic",
        "aime24/": "additions/",
    },
    "docs/results.md": {"--run runs/demo": "--model student"},
    "docs/settings.md": {
        "output_weight": "output_loss: reverse_kl\noutput_weight",
        "start: 20, steps: 50": "start: 0, steps: 1",
    },
    **{f"docs/how-to/{path.name}": {} for path in sorted((ROOT / "docs/how-to").glob("*.md"))},
}
# Pages whose blocks other tests run, or compare.
ELSEWHERE = {
    "CONTRIBUTING.md": "tests/docs/test_contributing.py",
    "docs/bridge-format.md": "tests/core/bridge/test_file.py",
    "docs/inspect.md": "tests/docs/test_inspect.py",
    "docs/method.md": "tests/docs/test_method.py",
    "docs/report.md": "tests/docs/test_report.py",
    "docs/teachers.md": "tests/docs/test_teachers.py",
    "docs/tokenizers.md": "tests/docs/test_tokenizers.py",
}
# Commands that need another environment, and the test that runs them there.
ENGINES = {"vllm": "tests/engines/test_exported.py"}


@pytest.fixture(autouse=True)
def tables():
    """A page that puts a loss of its own into a table leaves it as it was."""
    kept = dict(STATE_LOSSES)
    yield
    STATE_LOSSES.clear()
    STATE_LOSSES.update(kept)


@pytest.mark.parametrize("page", HERE)
def test_a_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    workshop.furnish(tmp_path)
    shop = Workshop(monkeypatch, HERE[page])
    shop.run((ROOT / page).read_text())
    assert {command[0] for command in shop.elsewhere} <= set(ENGINES)
    assert all((ROOT / test).exists() for test in ENGINES.values())


def test_every_page_with_a_block_that_does_something_is_run():
    doing = {
        path.relative_to(ROOT).as_posix()
        for path in PAGES
        if any(language not in SHOWN for language, _ in blocks(path.read_text()))
    }
    assert doing == {*HERE, *ELSEWHERE}
    for page, test in ELSEWHERE.items():
        assert Path(page).name in (ROOT / test).read_text(), page


def named(pattern: str) -> set[str]:
    """What all pages name in code."""
    texts = [path.read_text() for path in PAGES if path.name != "CHANGELOG.md"]
    return {found for text in texts for found in re.findall(pattern, text)}


def test_every_command_that_is_named_exists():
    commands = get_command(app).commands  # type: ignore[attr-defined]
    shown = named(r"(?:^|`)oprd ([a-z]+)")
    assert shown <= set(commands) and len(shown) > 8
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert named(r"(?:^|`)make ([a-z-]+)") <= targets
    assert named(r"python -m lab run ([a-z][\w-]*)") <= set(ITEMS)
    programs = named(r"python ((?:recipes|benchmarks)/[\w/]+\.py)")
    assert len(programs) > 5 and all((ROOT / name).is_file() for name in programs)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_to_a_file_and_a_heading(path):
    for link in sources.links(path.read_text()):
        target, anchor = sources.target_of(path, link)
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor[1:] in sources.anchors(target.read_text()), link
