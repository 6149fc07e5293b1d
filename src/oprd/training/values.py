"""Values of settings: parsed, and refused with a sentence that names the setting."""

import json
import math
from typing import Any


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


def parse_mapping(name: str, text: str | None) -> dict[str, Any] | None:
    """A mapping as a command line gives it, in JSON; None for None.

    Raises:
        ValueError: it is not a JSON object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object such as '{{\"a\": 1}}', got {text!r}.")
    return value


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse, with a ValueError, what is not among the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


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
