"""The tables of docs/paper.md, which are what the committed results say.

A table stands between `<!-- NAME -->` and `<!-- end -->`; NAME is that of an item, or `verdicts`.
"""

import json
import re
from pathlib import Path

from lab import verdicts
from lab.items import ITEMS
from lab.results import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"
VERDICTS = "verdicts"
_BLOCK = re.compile(r"(<!-- (?P<name>[\w, -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """The page with the tables of the results that are there now.

    Raises:
        FileNotFoundError: a table's results are not there.
        KeyError: a name is no item's.
    """

    def block(found: re.Match[str]) -> str:
        name = found["name"]
        if name == VERDICTS:
            return found[1] + "\n".join(verdicts.table()) + "\n" + found[3]
        results = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        return found[1] + "\n".join(ITEMS[name].table(results)) + "\n" + found[3]

    return _BLOCK.sub(block, text)
