"""Text from strangers: whether it can be read at all, and how it is shown."""

import json
import reprlib
from typing import Any


def check_text(text: object, what: str) -> str:
    """Text that says something and that every encoding can hold.

    Raises:
        ValueError: it is missing, no text, empty, or holds half of a surrogate pair.
    """
    if text is None:
        raise ValueError(f"{what} is missing")
    if not isinstance(text, str):
        raise ValueError(f"{what} is {kind(text)}, not text")
    if not text.strip():
        raise ValueError(f"{what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not valid Unicode at character {error.start}") from error
    return text


def parse_json(text: str | bytes) -> Any:
    """What JSON says, however it was written.

    Raises:
        ValueError: it is no JSON, or is nested deeper than can be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep to be read") from error


def kind(value: object) -> str:
    """A value with its type, shortened."""
    return f"{type(value).__name__} {reprlib.repr(value)}"


def one_line(text: object) -> str:
    """Text on one line, with control characters escaped, so that no input can steer a terminal."""
    return escaped(" ".join(str(text).split()))


def escaped(text: str) -> str:
    """Text with what a terminal would not print as it is written in Python, line breaks too."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def escaped_lines(text: str) -> str:
    """The same, with line breaks as they are."""
    return "\n".join(map(escaped, text.split("\n")))


def shortened(text: str, limit: int) -> str:
    """Text of at most about `limit` characters, its middle left out."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]} … {text[len(text) - limit // 2 :]}"
