import pytest
from latex2sympy2_extended import latex2sympy
from sympy import Interval, Union, oo

from oprd.evaluation.shapes import as_region, differ


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


def test_inequalities_of_which_one_holds_are_a_region():
    formula = r"x < 2 \text{ or } x \geq 3"
    assert as_region(formula, latex2sympy(formula)) == Union(Interval.open(-oo, 2), Interval(3, oo))


@pytest.mark.parametrize(
    "formula",
    [
        *("x < 2", "4, 5", "x < 2, x > 1", r"x < 2 \text{ and } x > 1", r"x = 2 \text{ or } x = 3"),
        *(r"x < 2 \text{ or } y > 3", r"x < 2 \text{ or } 3"),
    ],
)
def test_inequalities_that_may_hold_together_are_left_alone(formula):
    assert as_region(formula, latex2sympy(formula)) == latex2sympy(formula)
