"""What a run's settings were given, before they fill in and normalise the rest."""

from dataclasses import MISSING, fields
from typing import Any

from oprd.secrets import picklable


def no_defaults(settings: Any) -> dict[str, Any]:
    """The fields of a dataclass whose values are no defaults."""
    return {
        field.name: value
        for field in fields(settings)
        if field.init and (value := getattr(settings, field.name)) != _default(field)
    }


class Given:
    """The values that settings were made with, and those that were set on them afterwards.

    Args:
        settings: a dataclass, fully made.
        at_first: its `no_defaults` before it changed anything itself.
    """

    def __init__(self, settings: Any, at_first: dict[str, Any]) -> None:
        self._at_first, self._made = at_first, dict(vars(settings))

    def values(self, settings: Any) -> dict[str, Any]:
        """By name, of the same settings or of a copy."""
        later = {
            field.name: value
            for field in fields(settings)
            if field.init and (value := getattr(settings, field.name)) != self._made[field.name]
        }
        return self._at_first | later

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: secrets are None in it."""
        return {name: picklable(values) for name, values in vars(self).items()}


def _default(field: Any) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return field.default
