"""A notebook that is kept as text (jupytext's py:percent) as a page."""

import re

CELL = re.compile(r"^# %%(.*)$", flags=re.MULTILINE)


def page(text: str) -> str:
    """Cells of Markdown as text, the others as code."""
    _, *parts = CELL.split(text)
    shown = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        if kind.strip() == "[markdown]":
            shown.append(
                "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines(body))
            )
        else:
            shown.append("```python\n" + "\n".join(lines(body)) + "\n```")
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
