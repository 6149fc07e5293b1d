"""A learning rate from a range test: updates of one batch at growing rates, the loss after each.

A rate too low moves nothing, one too high makes the loss rise; between them the loss falls.
All updates follow one another, so that the fall at a rate is that of all rates up to it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

# Good rates of full weights and of adapters, under Adam and its kin or under SGD, lie within.
LOWEST, HIGHEST, PER_DECADE = 1e-7, 1.0, 4
# The test ends where the loss is so many times the first one, or so many times the lowest one when
# that is several updates ago.
RISEN, AGO = 1.5, 4
# Near the lowest loss the curve is flat, and rates beyond overshoot: the one is taken at which the
# loss has come down by this share of the greatest fall.
SHARE = 0.98
# A fall that is smaller than this share of the loss is none.
LEAST_FALL = 0.02
# So far below the rate of the lowest loss nothing moves: what the loss varies there is noise, of
# which more than this share of its fall is too much.
FAR_BELOW, MOST_NOISE = 1e-3, 0.1
# Rollouts of a batch below which it says little of the next one.
FEW = 8


@dataclass(frozen=True)
class RateCurve:
    """What a range test found.

    Attributes:
        first: the loss before the first update.
        rates: of the updates, ascending.
        losses: after each of them; not finite where it diverged.
        rollouts: of the batch.
        changing: whether later steps have another objective than the one it measured.
    """

    first: float
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    rollouts: int
    changing: bool = False

    @property
    def lowest(self) -> int:
        """The index of the lowest loss."""
        return min(range(len(self.losses)), key=lambda i: _or_inf(self.losses[i]))

    @property
    def rate(self) -> float:
        """The rate to train at, to two digits: where most of the fall is reached.

        Between two rates that were tried the loss is taken to be linear in their logarithm.

        Raises:
            ValueError: the loss did not fall at any rate.
        """
        if self.fall <= LEAST_FALL:
            raise ValueError(
                f"learning_rate='auto' found no rate between {self.rates[0]:.0e} and "
                f"{self.rates[-1]:.0e} at which the loss falls (it is {self.first:.3g}, and "
                f"{self.losses[self.lowest]:.3g} at best): is the teacher the student? Set "
                "learning_rate to a number to train all the same."
            )
        enough = self.first - SHARE * (self.first - self.losses[self.lowest])
        at = next(i for i, loss in enumerate(self.losses) if loss <= enough)
        before = _or_inf(self.losses[at - 1]) if at else math.inf
        # 1 at the rate before it, 0 at its own.
        back = (
            0.0 if math.isinf(before) else (enough - self.losses[at]) / (before - self.losses[at])
        )
        rate = self.rates[at] * (self.rates[max(at - 1, 0)] / self.rates[at]) ** back
        return float(f"{rate:.1e}")

    @property
    def fall(self) -> float:
        """How far the loss fell at best, as a share of what it was."""
        if not self.first > 0:
            return 0.0
        return 1 - _or_inf(self.losses[self.lowest]) / self.first

    def doubts(self) -> list[str]:
        """Why the rate cannot be trusted, each a sentence; none where it can."""
        found = []
        if self.rollouts < FEW:
            found.append(
                f"the batch has {self.rollouts} rollouts: with fewer than {FEW} the next one may "
                "ask for another rate"
            )
        both = zip(self.rates, self.losses, strict=True)
        still = [loss for rate, loss in both if rate <= FAR_BELOW * self.rates[self.lowest]]
        quiet = [self.first, *map(_or_inf, still)]
        fallen = self.first - _or_inf(self.losses[self.lowest])
        if max(quiet) - min(quiet) > MOST_NOISE * fallen:
            found.append("the loss varies where no rate moves it, by dropout for instance")
        if self.changing:
            found.append(
                "it is that of the first step's objective, and later ones, by weights that change "
                "or by stages, may ask for another"
            )
        if self.lowest == len(self.losses) - 1:
            found.append(f"the loss still falls at {self.rates[-1]:.0e}, the last rate tried")
        return found

    def facts(self) -> dict[str, Any]:
        """What a record says of it."""
        return {
            "learning_rate": self.rate,
            "first_loss": self.first,
            "rates": list(self.rates),
            "losses": [loss if math.isfinite(loss) else None for loss in self.losses],
            "rollouts": self.rollouts,
            "doubts": self.doubts(),
        }

    def lines(self, width: int = 40) -> Iterator[str]:
        """The curve as text, a bar for each loss, and what follows from it."""
        yield f"Range test of the learning rate, {len(self.rates)} updates on the first batch:"
        top = max(loss for loss in (self.first, *self.losses) if math.isfinite(loss))
        marked = {self.lowest: "  lowest"}
        for number, (rate, loss) in enumerate(zip(self.rates, self.losses, strict=True)):
            bar = "█" * round(width * loss / top) if math.isfinite(loss) else "diverged"
            yield f"  {rate:7.1e}  {loss:<9.3g} {bar}{marked.get(number, '')}"
        yield f"Learning rate: {self.rate:.1e}, at which {SHARE:.0%} of the fall is reached."
        if doubts := self.doubts():
            yield f"It is a guess, because {'; '.join(doubts)}."


def rates() -> list[float]:
    """Those that are tried, ascending."""
    decades = round(math.log10(HIGHEST / LOWEST))
    return [LOWEST * 10 ** (n / PER_DECADE) for n in range(decades * PER_DECADE + 1)]


def range_test(
    loss_with_gradient: Callable[[], float],
    update: Callable[[float], None],
    rollouts: int,
    *,
    changing: bool = False,
) -> RateCurve:
    """Update at one rate after the other, until the loss has risen.

    Args:
        loss_with_gradient: the loss of the batch, the same in every process, leaving its gradient.
        update: an optimizer step at a rate with that gradient, which it takes away.
        rollouts: of the batch, over all processes.
        changing: whether later steps have another objective.
    """
    first = loss_with_gradient()
    tried: list[float] = []
    losses: list[float] = []
    for rate in rates():
        update(rate)
        tried.append(rate)
        try:
            losses.append(loss_with_gradient())
        except FloatingPointError:
            losses.append(math.inf)
        lowest = min(losses)
        late = len(losses) - losses.index(lowest) > AGO
        if not losses[-1] < RISEN * (lowest if late else first):
            break
    return RateCurve(first, tuple(tried), tuple(losses), rollouts, changing)


def _or_inf(loss: float) -> float:
    return loss if math.isfinite(loss) else math.inf
