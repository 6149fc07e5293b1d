"""What was expected of the items, and what their committed results say of it."""

from collections.abc import Mapping

from lab.expectations import Judged, Verdict
from lab.items import ITEMS
from lab.items.item import Item
from lab.results import read

HEAD = ("source", "claim", "counts as confirmed", "verdict", "found", "item")


def graded(items: Mapping[str, Item] = ITEMS) -> list[tuple[str, str, str, Judged, str]]:
    """Source, claim, what counts as confirmed, verdict and item, for all that is expected."""
    return [
        (
            expected.source,
            expected.claim,
            str(expected.bar),
            expected.judge(read(name, quick=False)),
            name,
        )
        for name, item in items.items()
        for expected in item.expects
    ]


def table(items: Mapping[str, Item] = ITEMS) -> list[str]:
    """The verdicts as lines of Markdown: how many of each, then every one of them."""
    rows = graded(items)
    counts = [f"{sum(of.verdict == v for *_, of, _ in rows)} {v}" for v in Verdict]
    lines = [f"{', '.join(counts)}.", "", _row(*HEAD), "|" + "---|" * len(HEAD)]
    for source, claim, bar, judged, name in rows:
        found = judged.why.replace("|", "\\|")
        lines.append(_row(source, claim, bar, str(judged.verdict), found, f"`{name}`"))
    return lines


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
