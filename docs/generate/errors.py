"""What oprd says where it refuses something, read off the code."""

import ast
import builtins
import re
from collections import defaultdict
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "oprd"
HEAD = """\
# Errors

The sentences that oprd itself refuses something with, as far as they stand where they are raised,
by the room that says them. Where a value stands, its name stands here. A command prints `oprd:`
and the sentence, and ends with 1 (with 2 for an option that it does not know); `--debug` before
the command shows the traceback. In Python it is an exception.

This page is made of the code when the site is built.
"""


def message(node: ast.expr) -> str | None:
    """The text of an expression, with names in the place of values; None where it has none."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                part.value if isinstance(part, ast.Constant) and isinstance(part.value, str)
                else f"‹{_name(part.value)}›" if isinstance(part, ast.FormattedValue)
                else ""
                for part in parts
            )  # fmt: skip
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            found = [message(left), message(right)]
            return None if None in found else "".join(part for part in found if part)
    return None


def _name(value: ast.expr) -> str:
    """What a value is called: the first name in it that is no function of Python's."""
    for node in ast.walk(value):
        if isinstance(node, ast.Attribute) and node.attr != "join":
            return node.attr
        if isinstance(node, ast.Name) and not hasattr(builtins, node.id):
            return node.id
    return ast.unparse(value)


def raised(path: Path) -> list[tuple[str, str]]:
    """The kinds and texts of what a file raises, in the order of the file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call):
            continue
        kind, given = ast.unparse(node.exc.func), node.exc.args
        text = message(given[0]) if given else None
        # What only wraps another's words has none of its own.
        if text and any(letter.isalpha() for letter in text.split("‹")[0] + text.split("›")[-1]):
            found.append((node.lineno, kind, " ".join(text.split())))
    return [(kind, text) for _, kind, text in sorted(found)]


def by_room() -> dict[str, dict[str, list[tuple[str, str]]]]:
    """All of them, by room and file."""
    rooms: dict[str, dict[str, list[tuple[str, str]]]] = defaultdict(dict)
    for path in sorted(SOURCE.rglob("*.py")):
        name = path.relative_to(SOURCE)
        if name.name != "__init__.py" and (found := raised(path)):
            rooms[name.parts[0].removesuffix(".py")][name.as_posix()] = found
    return rooms


def page() -> str:
    """The page."""
    parts = [HEAD]
    for room, files in by_room().items():
        parts.append(f"## {room}")
        for name, found in files.items():
            rows = [f"- `{kind}`: {_plain(text)}" for kind, text in dict.fromkeys(found)]
            parts.append(f"`{name}`\n\n" + "\n".join(rows))
    return "\n\n".join(parts) + "\n"


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|])", r"\\\1", text)
