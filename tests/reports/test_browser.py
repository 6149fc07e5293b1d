"""The page in a real browser: quiet, without a request, readable on a phone and on a desk."""

import os
import shutil

import pytest

from oprd.reports import page
from oprd.reports.told import read
from oprd.runs.folder import read_run
from tests.reports.made import write_run
from tests.reports.test_page import hostile_run

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    runs = {
        "one": [write_run(folder / "one")],
        "two": [write_run(folder / name) for name in ("first", "second")],
        "hostile": [hostile_run(folder)],
    }
    for name, found in runs.items():
        text = page.html(read([read_run(run) for run in found]))
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", ["one", "two", "hostile"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_a_page_is_quiet_and_fits(browser, pages, name, scheme, width):
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    opened = context.new_page()
    requests, said = [], []
    opened.on("request", lambda request: requests.append(request.url))
    opened.on("console", lambda message: said.append(message.text))
    opened.on("pageerror", lambda error: said.append(str(error)))
    opened.on("dialog", lambda dialog: said.append(dialog.message))
    # A machine that is busy takes longer than a person would wait.
    opened.goto((pages / f"{name}.html").as_uri(), timeout=120_000)
    assert [url for url in requests if not url.startswith("data:")] == [opened.url]
    assert not said
    assert opened.evaluate("document.documentElement.scrollWidth") <= width
    ink, paper = opened.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert _contrast(ink, paper) > 7
    # What is written in pictures is as legible as what surrounds it.
    drawn = opened.evaluate(
        "[...document.querySelectorAll('svg text')].map(t => [getComputedStyle(t).fill, "
        "t.getBoundingClientRect().height])"
    )
    assert drawn and all(_contrast(fill, paper) > 4.5 for fill, _ in drawn)
    assert min(height for _, height in drawn) >= 9
    if folder := os.environ.get("OPRD_SHOW_PICTURES"):
        opened.screenshot(path=f"{folder}/{name}-{width}-{scheme}.png", full_page=True)
    context.close()


def _contrast(first: str, second: str) -> float:
    """The ratio of two colours' luminance by WCAG 2."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(color: str) -> float:
    parts = [float(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(share * p for share, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
