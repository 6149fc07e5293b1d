"""Values of settings: parsed, and refused with a sentence that names the setting."""

import difflib
import math
from collections.abc import Iterable
from typing import Any

from oprd.text import parse_json

# Settings of earlier versions, with what takes their place.
RENAMED: dict[object, str] = {
    "loss_top_k": "'k' of output_loss_kwargs, such as {\"k\": 16} for output_loss topk",
    "loss_top_k_support": (
        '\'support\' of output_loss_kwargs, such as {"support": "union"} for output_loss topk'
    ),
    "loss_top_k_renormalize": (
        "'renormalize' of output_loss_kwargs, such as {\"renormalize\": false} for output_loss topk"
    ),
    "normalize": "scale: 'unit' for true, 'none' for false",
    "jsd_beta": "'beta' of output_loss_kwargs, such as {\"beta\": 0.5} for output_loss jsd",
}


def parse_layers(layers: object) -> str | tuple[int, ...]:
    """A layer specification as text gives it: a name, or numbers between commas.

    Raises:
        ValueError: it is neither text nor numbers.
    """
    if isinstance(layers, str):
        numbers = [number.strip() for number in layers.split(",")]
        listed = all(number.isascii() and number.isdigit() for number in numbers)
        spec: str | tuple[int, ...] = tuple(map(int, numbers)) if listed else layers
    elif isinstance(layers, int | list | tuple):
        spec = tuple(layers) if isinstance(layers, list | tuple) else (layers,)
    else:
        raise ValueError(f"layers must be a name or layer numbers, got {layers!r}.")
    return spec


def parse_names(names: str | Iterable[str]) -> list[str]:
    """Names one by one, of a list or of text with commas between them."""
    text = names if isinstance(names, str) else ",".join(map(str, names))
    return [name.strip() for name in text.split(",") if name.strip()]


def refuse_renamed(name: object) -> None:
    """Refuse, with a ValueError that says the new name, a setting of an earlier version."""
    if name in RENAMED:
        raise ValueError(f"{name} has become {RENAMED[name]}.")


def parse_mapping(name: str, text: str | None) -> dict[str, Any] | None:
    """A mapping as a command line gives it, in JSON; None for None.

    Raises:
        ValueError: it is not a JSON object.
    """
    if text is None:
        return None
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object such as '{{\"a\": 1}}', got {text!r}.")
    return value


def parse_list(name: str, given: object) -> object:
    """A list of mappings, which a command line gives in JSON; anything else as it is.

    Raises:
        ValueError: it is a text that is no JSON.
    """
    if not isinstance(given, str):
        return given
    try:
        return parse_json(given)
    except ValueError as error:
        raise ValueError(f"{name} must be a JSON list of mappings: {error}.") from error


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse, with a ValueError, what is not among the choices."""
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f": did you mean {close[0]!r}?" if close else "."
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}{hint}")


def check_at_least(name: str, value: object, least: int) -> None:
    """Refuse, with a ValueError, what is not a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def check_number(name: str, value: object) -> float:
    """Refuse, with a ValueError, what is not a number; return it."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r}.")
    return value


def check_positive(name: str, value: object, below: float = math.inf) -> None:
    """Refuse, with a ValueError, what is not a number above 0 and below a bound."""
    if not 0 < check_number(name, value) < below:
        bound = "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name} must be above 0{bound}, got {value}.")
