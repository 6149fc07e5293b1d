import pytest
from latex2sympy2_extended import latex2sympy

from oprd.evaluation.shapes import differ


def apart(gold: str, answer: str) -> bool:
    return differ(gold, latex2sympy(gold), answer, latex2sympy(answer))


@pytest.mark.parametrize(
    "formulas",
    [
        ("4 < x < 5", r"\{4, 5\}"),
        (r"x \in (4, 5)", "4, 5"),
        (r"\{4, 5\}", "(4, 5)"),
        ("(x, y) = (4, 5)", r"x \in (4, 5)"),
        (r"(4, \infty)", r"4, \infty"),
        ("(1, 2, 3)", r"\{1, 2, 3\}"),
        ("x = 4, x = 5", "(4, 5)"),
    ],
)
def test_what_says_that_it_is_one_thing_is_no_other(formulas):
    assert apart(*formulas)
    assert apart(*reversed(formulas))


@pytest.mark.parametrize(
    "formulas",
    [
        ("4 < x < 5", "(4, 5)"),
        (r"x \in (4, 5)", "(4, 5)"),
        ("4, 5", "(4, 5)"),
        ("4, 5", r"\{4, 5\}"),
        ("(x, y) = (4, 5)", "4, 5"),
        ("4", r"\{4\}"),
        ("x", "5"),
    ],
)
def test_what_could_be_meant_by_both_is_left_to_math_verify(formulas):
    assert not apart(*formulas)
    assert not apart(*reversed(formulas))


def test_an_inequality_that_holds_at_points_is_a_set():
    assert not apart(r"x^2 (x-1)^2 \leq 0", r"\{0, 1\}")


def test_a_line_is_no_number():
    assert apart("x + y = 5", "5")
    assert not apart("x + y = 5", "y = 5 - x")
    assert not apart("y = 5", "5")
