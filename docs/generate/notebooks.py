"""A notebook that is kept as text (jupytext's py:percent) as a page."""

import re
from pathlib import Path

CELL = re.compile(r"^# %%(.*)$", flags=re.MULTILINE)


def page(path: Path) -> str:
    """Cells of Markdown as text, the others as code, and the file to take away."""
    _, *parts = CELL.split(path.read_text(encoding="utf-8"))
    shown = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        if kind.strip() == "[markdown]":
            shown.append(
                "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines(body))
            )
        else:
            shown.append("```python\n" + "\n".join(lines(body)) + "\n```")
    shown.append(f'<a href="{path.name}" download>{path.name}</a>')
    return "\n\n".join(shown) + "\n"


def lines(body: str) -> list[str]:
    """Of a cell, without empty ones around it."""
    return body.strip("\n").splitlines()


def code(text: str) -> str:
    """What a notebook runs, from top to bottom."""
    return "\n".join(
        "\n".join(lines(body))
        for kind, body in zip(CELL.split(text)[1::2], CELL.split(text)[2::2], strict=True)
        if kind.strip() != "[markdown]"
    )
