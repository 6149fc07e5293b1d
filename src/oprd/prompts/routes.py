"""Which of several teachers teaches a row of the prompts, and with what share of the row's loss."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from datasets import Dataset

from oprd.models.prompt import ROUTE
from oprd.text import kind


class Routes:
    """The way from rows to teachers.

    A row's column `teacher` names its teacher, or several in a list, whose losses are averaged by
    their weights. Without the column all teachers with a weight teach every row.

    Args:
        weights: by teacher; None where none is given, which counts as 1 among several of a row.
    """

    def __init__(self, weights: Mapping[str, float | None]) -> None:
        self.names = tuple(weights)
        self._weights = weights

    def check(self, columns: Collection[str]) -> None:
        """Refuse, with a ValueError, rows that do not say who teaches them where they must."""
        unweighed = [name for name, weight in self._weights.items() if weight is None]
        if ROUTE not in columns and unweighed:
            raise ValueError(
                f"the prompts have no column {ROUTE!r} that says who of {self._listed} teaches a "
                f"row (their columns: {', '.join(map(repr, columns))}): add it, or give each "
                "teacher a weight, so that all of them teach every row."
            )

    def shares(self, row: Mapping[str, Any]) -> list[float]:
        """What each teacher's loss on a row is multiplied by, in their order; they sum to 1.

        Raises:
            ValueError: the row names none, or one that there is not, or weights that sum to 0.
        """
        named = self.named(row)
        weights = [
            (1.0 if (weight := self._weights[name]) is None else weight) if name in named else 0.0
            for name in self.names
        ]
        if len(named) == 1:
            # Alone it has all of the row, whatever its weight.
            return [float(name in named) for name in self.names]
        if not (total := sum(weights)):
            raise ValueError(
                f"has the teachers {', '.join(named)}, whose weights sum to 0: give one of them "
                "more"
            )
        return [weight / total for weight in weights]

    def named(self, row: Mapping[str, Any]) -> list[str]:
        """The teachers of a row.

        Raises:
            ValueError: it names none, or one that there is not.
        """
        if ROUTE not in row:
            return list(self.names)
        found = row[ROUTE]
        named = [found] if isinstance(found, str) else found
        if not isinstance(named, list) or not named:
            raise ValueError(f"names no teacher in its column {ROUTE!r}, but has {kind(found)}")
        for name in named:
            if name not in self.names:
                raise ValueError(f"names the teacher {name!r}, and there are {self._listed}")
        return named

    def check_rows(self, dataset: Dataset, what: str) -> None:
        """Refuse, with a ValueError, a row that no teacher can take; the message names it.

        Args:
            dataset: of prompts.
            what: it is for, in messages.
        """
        self.check(dataset.column_names)
        if ROUTE not in dataset.column_names:
            return
        for number, found in enumerate(dataset[ROUTE]):
            try:
                self.shares({ROUTE: found})
            except ValueError as error:
                raise ValueError(f"{what} prompt {number} {error}.") from error

    def groups(self, dataset: Dataset) -> list[tuple[str, ...]]:
        """By row, who teaches it: what rows of one update have in common where it is pure."""
        if ROUTE not in dataset.column_names:
            return [self.names] * len(dataset)
        return [tuple(sorted(self.named({ROUTE: found}))) for found in dataset[ROUTE]]

    @property
    def _listed(self) -> str:
        return ", ".join(self.names)


def check_groups(groups: Sequence[tuple[str, ...]], batch: int) -> None:
    """Refuse, with a ValueError, teachers of whose prompts no whole update can be made.

    Args:
        groups: of `Routes.groups`.
        batch: prompts of an update.
    """
    for group in dict.fromkeys(groups):
        if (count := groups.count(group)) < batch:
            raise ValueError(
                f"the teacher {' and '.join(group)} has {count} prompts, and an update of its own "
                f"takes {batch}: give it more, make updates smaller, or set "
                "teacher_batches='mixed'."
            )
