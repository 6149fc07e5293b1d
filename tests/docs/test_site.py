"""The site is built without a warning, asks nothing of a network, and fits a desk and a phone."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate import errors, reference, sources
from oprd.core.states.loss import StateLoss
from tests.docs.workshop import ROOT

CHROMIUM = shutil.which("chromium")
FETCHED = re.compile(r"<(?:script|img|iframe|source)[^>]* src=\"?([^\" >]+)|<link[^>]*>")
WIDTHS = {"wide": (1280, 900), "narrow": (390, 844)}
slow = pytest.mark.slow(minutes=0.5)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built as `make docs` builds it, where nothing can be fetched."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


@slow
def test_no_page_fetches_anything_from_elsewhere(site: Path):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        for found in FETCHED.finditer(page.read_text(encoding="utf-8")):
            wanted = re.search(r"href=\"?([^\" >]+)", found.group())
            target = found[1] or (wanted[1] if wanted else "")
            outside = "//" in target and not target.startswith("data:")
            assert not outside or 'rel="canonical"' in found.group(), f"{page.name}: {target}"


@slow
def test_the_readme_is_the_first_page_and_every_notebook_can_be_taken_away(site: Path):
    assert "Two commands" in (site / "index.html").read_text()
    for path in (ROOT / "docs" / "notebooks").glob("*.py"):
        assert (site / "notebooks" / path.name).read_bytes() == path.read_bytes()
        assert f'href="{path.name}" download' in (site / f"notebooks/{path.stem}.html").read_text()


@slow
@pytest.mark.parametrize("width", WIDTHS)
def test_a_browser_shows_it_without_a_network(site: Path, width: str):
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    wide, high = WIDTHS[width]
    asked: list[str] = []
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": wide, "height": high})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: pytest.fail(str(error)))
        for name in ("start", "settings", "comparison", "reference/api", "paper", "decide"):
            page.goto((site / f"{name}.html").as_uri())
            beyond = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(beyond) == 0, name
        if width == "wide":
            # The decision is one screen.
            end = page.evaluate("document.querySelector('table').getBoundingClientRect().bottom")
            assert end <= high
        if width == "narrow":
            page.locator("label[for=__search]").first.click()
        page.locator(".md-search__input").click()
        page.keyboard.type("tokenizer")
        page.locator(".md-search-result__item").first.wait_for(timeout=10_000)
        opened.close()
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}


def test_errors_are_shown_as_they_are_said_with_names_for_values(tmp_path):
    said = dict(errors.by_room()["settings"])["settings/run.py"]
    assert any("fp16=True has no effect without an accelerator" in text for _, text in said)
    file = tmp_path / "said.py"
    file.write_text(
        'raise ValueError(f"a must be 1, " f"got {a!r}. " + "Set it.")\nraise OSError(b)'
    )
    assert errors.raised(file) == [("ValueError", "a must be 1, got ‹a›. Set it.")]
    assert "a must be 1" not in errors.page()


def test_every_setting_and_every_command_has_its_place_in_the_reference():
    rows = re.findall(r"^\| `(\w+)` \|.*\| (kept|said|free) \|", reference.settings(), re.MULTILINE)
    found = dict(rows)
    shown = (ROOT / "docs" / "settings.md").read_text()
    first = [row.split("|")[1] for row in shown.splitlines() if row.startswith("| `")]
    named = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
    assert named <= set(found)
    assert (found["scale"], found["bridge"], found["learning_rate"]) == ("kept", "kept", "said")
    assert found["sample_steps"] == "free"
    titles = re.findall(r"^## oprd (.+)$", reference.commands(), re.MULTILINE)
    assert {"eval", "inspect", "bridge fit", "report", "export", "doctor"} <= set(titles)
    assert StateLoss.__name__ in (ROOT / "docs" / "reference" / "api.md").read_text()


def test_links_are_followed_out_of_the_folder_and_left_alone_in_code():
    page = ROOT / "docs" / "how-to" / "lora.md"
    text = "[a](../cost.md#x) [b](../../SECURITY.md) [c](https://a.b)\n```\n[d](../cost.md)\n```\n"
    assert sources.rewritten(text, page) == (
        "[a](../cost.md#x) [b](../project/security.md) [c](https://a.b)\n"
        "```\n[d](../cost.md)\n```\n"
    )
    assert sources.rewritten("[t](../../tests/tiny.py)", page) == "[t](../source/tests/tiny.py.md)"
    assert sources.rewritten("[r](docs/cost.md)", ROOT / "README.md") == "[r](cost.md)"
