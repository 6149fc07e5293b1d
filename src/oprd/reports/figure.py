"""Pictures in one style: empty ones, and what becomes of them in a page and in a paper.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart; lines differ
by their dashes as well. In a page they are variables of its style sheet, so that a picture follows
the page into the dark.
"""

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from oprd.extras import require
from oprd.text import escaped, shortened

INK, MUTED, GRID, PAPER = "#16181d", "#5b616b", "#dfe2e6", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f80")
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.4, 1.2, 1.4)))
VARIABLES = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    **{color: f"var(--s{number})" for number, color in enumerate(SERIES, 1)},
}
STYLE = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.4,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "legend.handlelength": 2.4,
    "svg.fonttype": "none",
    "svg.hashsalt": "oprd",
}
SIZE = (4.1, 2.6)
# Per inch, of what is no line in a page, and of a picture for a paper.
DOTS, DPI = 110, 300


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    kind = require("matplotlib.figure", "report", "a picture").Figure
    return kind(figsize=(width, height), layout="constrained")


@contextmanager
def styled() -> Iterator[None]:
    """What is drawn and saved in the block has this style.

    Raises:
        ImportError: matplotlib is not installed.
    """
    matplotlib: Any = require("matplotlib", "report", "a picture")
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        # A name may hold characters that the font lacks: a page has others.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def label(name: object, limit: int = 40) -> str:
    """A stranger's name in a picture, where a leading underscore would hide it."""
    text = shortened(escaped(str(name)), limit)
    return f" {text}" if text.startswith("_") else text


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the series of that number, from 0."""
    return {
        "color": SERIES[number % len(SERIES)],
        # The same colour comes again with the next dashes.
        "linestyle": DASHES[(number % len(SERIES) + number // len(SERIES)) % len(DASHES)],
    }


def key_line(number: int) -> tuple[str, str]:
    """The colour and the dashes of that series for a page's own key, as attributes of an SVG."""
    style = line_style(number)
    dashes = style["linestyle"]
    length = "" if dashes == "-" else " ".join(f"{2 * part:g}" for part in dashes[1])
    return VARIABLES[style["color"]], length


def to_svg(figure: Any, name: str, text: str) -> str:
    """A figure as an element of a page.

    Args:
        figure: drawn within `styled`.
        name: unique in the page, of letters and digits.
        text: what it shows, for who does not see it; our own words.
    """
    buffer = io.StringIO()
    canvas = require("matplotlib.backends.backend_svg", "report", "a picture").FigureCanvasSVG
    figure.set_dpi(DOTS)
    # Not savefig, which draws everything twice, the first time to lay it out.
    canvas(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _opening(text), svg, count=1)
    # Several pictures stand in one page.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    return re.sub("|".join(VARIABLES), lambda found: VARIABLES[found[0]], svg)


def to_png(figure: Any, file: Path) -> None:
    """A figure for a paper, on white."""
    figure.savefig(file, dpi=DPI, facecolor="white")


def _opening(text: str) -> str:
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return rf'<svg {namespaces} viewBox="\1" role="img" aria-label="{text}">'
