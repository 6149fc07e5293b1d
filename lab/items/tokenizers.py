"""A teacher of other tokens: whether the student is above where it began."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lab.items.compared import Compared
from lab.results import Estimate
from lab.tokens import OWN_BOTH, OWN_TOKENS


@dataclass(frozen=True)
class Tokenizers(Compared):
    """The comparison, and how far each method rises above the student that was not trained."""

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """The findings as lines of Markdown."""
        said = (f"{name} {rise(found, name).points()}" for name in found["methods"])
        return [*super().table(found), "", f"Above no training, points: {'; '.join(said)}."]

    def verdicts(self, found: Mapping[str, Any]) -> dict[str, bool]:
        """Which claims hold: those of the comparison, and that the student rises."""
        settled = super().verdicts(found)
        for method in {OWN_BOTH, OWN_TOKENS} & set(found["methods"]):
            risen = rise(found, method)
            if risen.low is None or risen.high is None or not risen.low <= 0 <= risen.high:
                settled[f"{method} above no training"] = risen.mean > 0
        return settled


def rise(found: Mapping[str, Any], method: str) -> Estimate:
    """How much higher the reported accuracy of a method's students is than before training."""
    before = found["student"]["accuracy"]
    return Estimate.of(s["accuracy"] - before for s in found["methods"][method]["scores"])
