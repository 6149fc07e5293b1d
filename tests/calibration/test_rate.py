"""A range test on losses that are known, and what follows from its curve."""

import math
from itertools import pairwise

import pytest

from oprd.calibration.rate import RateCurve, range_test, rates


def quadratic(curvature=1.0, floor=0.0):
    """Gradient descent on curvature/2 x² + floor, which diverges at rates above 2/curvature."""
    at = [1.0]

    def loss():
        return curvature / 2 * at[0] ** 2 + floor

    def update(rate):
        at[0] -= rate * curvature * at[0]

    return loss, update


def test_rates_rise_by_one_factor_over_what_optimizers_need():
    tried = rates()
    assert tried[0] == pytest.approx(1e-7)
    assert tried[-1] == pytest.approx(1.0)
    factors = [b / a for a, b in pairwise(tried)]
    assert factors == pytest.approx([factors[0]] * len(factors))


@pytest.mark.parametrize("curvature", [10.0, 1e3, 1e5])
def test_the_rate_lies_below_that_at_which_the_loss_diverges(curvature):
    curve = range_test(*quadratic(curvature), rollouts=32)
    assert 0.02 / curvature < curve.rate < 2 / curvature
    assert curve.doubts() == []


def test_the_test_ends_where_the_loss_has_risen():
    curve = range_test(*quadratic(1e4), rollouts=32)
    assert len(curve.rates) == len(curve.losses) < len(rates())
    assert curve.losses[-1] > min(curve.losses)


def test_a_loss_that_breaks_ends_the_test_as_one_that_diverged():
    loss, update = quadratic(1e4)
    calls = iter(range(1000))

    def breaking():
        if next(calls) > 10:
            raise FloatingPointError
        return loss()

    curve = range_test(breaking, update, rollouts=32)
    assert curve.losses[-1] == math.inf
    assert len(curve.losses) == 11
    assert curve.facts()["losses"] == [*curve.losses[:-1], None]


def test_a_rate_for_an_objective_that_changes_is_a_guess():
    curve = range_test(*quadratic(), rollouts=32, changing=True)
    assert any("later ones, by weights that change or by stages" in d for d in curve.doubts())
    assert curve.facts()["doubts"] == curve.doubts()
    assert "It is a guess" in list(curve.lines())[-1]


@pytest.mark.parametrize("losses", [(1.0, 1.0, 1.0), (0.99, 2.0), (math.inf,), (math.nan,)])
def test_a_loss_that_never_falls_has_no_rate(losses):
    curve = RateCurve(1.0, (1e-5, 1e-4, 1e-3)[: len(losses)], losses, rollouts=32)
    with pytest.raises(ValueError, match=r"found no rate between 1e-05 and .*: is the teacher the"):
        _ = curve.rate


def test_a_loss_of_zero_has_no_rate():
    with pytest.raises(ValueError, match="it is 0, and 0 at best"):
        _ = RateCurve(0.0, (1e-5, 1e-4), (0.0, 0.0), rollouts=32).rate


@pytest.mark.parametrize(
    ("losses", "rate"),
    [
        ((0.9, 0.2, 0.5), 9.5e-4),
        ((0.3, 0.27, 0.2), 5.9e-3),
        ((0.27, 0.2, 0.3), 5.9e-4),
        ((0.2, 0.3, 0.4), 1e-4),
        ((math.inf, 0.2, 0.3), 1e-3),
    ],
)
def test_the_rate_is_where_a_line_between_those_tried_reaches_98_percent_of_the_fall(losses, rate):
    assert RateCurve(1.0, (1e-4, 1e-3, 1e-2), losses, rollouts=32).rate == rate


def test_a_small_batch_and_an_open_end_are_doubts():
    few, still = RateCurve(1.0, (1e-7, 1e-3), (1.0, 0.2), rollouts=4).doubts()
    assert "the batch has 4 rollouts" in few
    assert "the loss still falls at 1e-03, the last rate tried" in still


def test_a_loss_that_varies_where_nothing_moves_is_a_doubt():
    noisy = (1.1, 0.9, 1.05, 0.95, 1.0, 0.8, 0.6, 0.9)
    tried = tuple(10.0 ** (n - 9) for n in range(8))
    (doubt,) = RateCurve(1.0, tried, noisy, rollouts=32).doubts()
    assert "the loss varies where no rate moves it" in doubt
    smooth = (1.0, 1.0, 1.0, 0.999, 0.99, 0.8, 0.6, 0.9)
    assert RateCurve(1.0, tried, smooth, rollouts=32).doubts() == []


def test_the_curve_is_shown_with_its_lowest_loss_and_the_rate():
    lines = list(RateCurve(1.0, (1e-4, 1e-3, 1e-2), (0.5, 0.25, math.inf), rollouts=4).lines(8))
    assert lines[1] == "  1.0e-04  0.5       ████"
    assert lines[2] == "  1.0e-03  0.25      ██  lowest"
    assert lines[3].endswith("diverged")
    assert lines[4] == "Learning rate: 8.7e-04, at which 98% of the fall is reached."
    assert lines[5].startswith("It is a guess, because the batch has 4 rollouts")
