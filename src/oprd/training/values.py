"""Checks of single settings, each with a message that names setting and value."""

import math


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse, with a ValueError, what is none of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def check_at_least(name: str, value: object, least: int) -> None:
    """Refuse, with a ValueError, what is not a whole number from `least` on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}.")


def check_number(name: str, value: object) -> float:
    """The value; refuse, with a ValueError, what is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{name} must be a number, got {value!r}.")
    return value


def check_positive(name: str, value: object, below: float = math.inf) -> None:
    """Refuse, with a ValueError, what is not a number between 0 and `below`."""
    if not 0 < check_number(name, value) < below:
        bound = "" if below == math.inf else f" and below {below:g}"
        raise ValueError(f"{name} must be above 0{bound}, got {value}.")
