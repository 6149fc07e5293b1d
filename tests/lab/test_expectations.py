import pytest

from lab.expectations import (
    Above,
    Expectation,
    FallsFromItsTop,
    GapClosed,
    Judged,
    Reading,
    ShareOfGain,
    Verdict,
)

YES, NO, OPEN = Verdict.CONFIRMED, Verdict.NOT_CONFIRMED, Verdict.NOT_TESTED


def found(seeds=(0, 1, 2), **methods):
    """Findings of methods by their accuracy at the end, one a seed, from curves that begin at 0."""
    return {
        "seeds": list(seeds),
        "teacher": {"accuracy": 0.9},
        "student": {"accuracy": 0.1},
        "methods": {
            name: {
                "scores": [{"accuracy": end, "best": end, "length": 100 * end} for end in ends],
                "curves": [{"steps": [0, 1, 2], "accuracy": [0.0, 0.8, end]} for end in ends],
            }
            for name, ends in methods.items()
        },
    }


CLEAR = found(a=(0.80, 0.81, 0.82), b=(0.60, 0.62, 0.61))
# The same means, and seeds that disagree.
UNCLEAR = found(a=(0.80, 0.81, 0.82), b=(0.40, 0.95, 0.48))


@pytest.mark.parametrize(
    ("bar", "findings", "verdict"),
    [
        (Above("a", "b"), CLEAR, YES),
        (Above("b", "a"), CLEAR, NO),
        (Above("a", "b"), UNCLEAR, NO),
        (Above("a", "b", by=15), CLEAR, YES),
        (Above("a", "b", by=20), CLEAR, NO),
        (Above("b", "a", by=-25), CLEAR, YES),
        (Above("b", "a", by=-20), CLEAR, NO),
        (Above("a", "b", "area"), CLEAR, YES),
        (Above("a", "b", "best"), CLEAR, YES),
        # By 20 tokens, not by 20 points of a share.
        (Above("a", "b", "length", by=15), CLEAR, YES),
        (Above("a", "b", "length", by=25), CLEAR, NO),
        (GapClosed("a", 0.8), CLEAR, YES),
        (GapClosed("a", 0.9), CLEAR, NO),
        (GapClosed("b", 0), UNCLEAR, NO),
        (GapClosed("a", 1), CLEAR, NO),
        # Gains of 51 points and of 71.
        (ShareOfGain("b", "a", 0.65), CLEAR, YES),
        (ShareOfGain("b", "a", 0.75), CLEAR, NO),
        (FallsFromItsTop("b", by=10), CLEAR, YES),
        (FallsFromItsTop("b", by=18), CLEAR, NO),
        (FallsFromItsTop("a", by=5), CLEAR, NO),
        (Reading("so many seeds", lambda f: (len(f["seeds"]) == 3, "three")), CLEAR, YES),
    ],
)
def test_a_bar_is_cleared_by_the_whole_interval(bar, findings, verdict):
    judged = Expectation("a paper", "a claim", bar).judge(findings)
    assert judged.verdict == verdict
    assert judged.why


def test_one_seed_does_not_test_what_wants_three():
    expected = Expectation("a paper", "a claim", Above("a", "b"))
    assert expected.judge(found(seeds=(0,), a=(0.9,), b=(0.1,))) == Judged(OPEN, "1 of 3 seeds")


def test_what_was_not_run_is_not_tested():
    judged = Expectation("a paper", "a claim", Above("a", "b")).judge({})
    assert judged == Judged(OPEN, "its runs are not made yet")


def test_a_method_that_was_not_compared_is_an_error():
    with pytest.raises(KeyError):
        Expectation("a paper", "a claim", Above("a", "c")).judge(CLEAR)


@pytest.mark.parametrize(
    ("bar", "said"),
    [
        (Above("a", "b"), "accuracy at the end: a above b"),
        (Above("a", "b", by=2), "accuracy at the end: a more than 2 above b"),
        (Above("a", "b", by=-2), "accuracy at the end: a no more than 2 below b"),
        (GapClosed("a", 0.9), "a closes at least 90% of the gap to its teacher"),
        (GapClosed("a", 0), "a ends above where it began"),
        (GapClosed("a", 1), "a ends above its teacher"),
        (ShareOfGain("a", "b", 0.6), "a gains at least 60% of what b gains"),
        (FallsFromItsTop("a", 5), "a ends more than 5 points below its curve's top"),
    ],
)
def test_a_bar_says_what_counts_as_confirmed(bar, said):
    assert str(bar) == said
