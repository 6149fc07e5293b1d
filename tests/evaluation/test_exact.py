import pytest
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from sympy import (
    Float,
    I,
    Integer,
    Matrix,
    Mul,
    Pow,
    Rational,
    Symbol,
    UnevaluatedExpr,
    exp,
    factorial,
    pi,
    sin,
    sqrt,
)

from oprd.evaluation.exact import equal_numbers, with_fractions

x = Symbol("x", real=True)
TINY = Pow(10, Integer(-300), evaluate=False)


@pytest.mark.parametrize(
    ("gold", "answer", "equal"),
    [
        (Rational(1, 2), Rational(2, 4), True),
        (Mul(2, TINY, evaluate=False), Mul(3, TINY, evaluate=False), False),
        (Mul(sqrt(8), TINY, evaluate=False), Mul(2, sqrt(2), TINY, evaluate=False), True),
        (Mul(sqrt(2), TINY, evaluate=False), Mul(sqrt(3), TINY, evaluate=False), False),
        (1 / factorial(50), 2 / factorial(50), False),
        (Integer(10) ** 30, Integer(10) ** 30 + 1, False),
        (Integer(262537412640768744), exp(pi * sqrt(163)), False),
        ((sqrt(2) + sqrt(3)) ** 2, 5 + 2 * sqrt(6), True),
        ((1 + I) ** 2, 2 * I, True),
        (2 * I, 2 * I + TINY, False),
        (Integer(0), TINY, False),
        (x, x + 1, False),
        (x + TINY - TINY, x, True),
        (Matrix([[sqrt(4), 1]]), Matrix([[2, Rational(2, 2)]]), True),
        (Matrix([[TINY, 1]]), Matrix([[0, 1]]), False),
        (Matrix([[1, 2]]), Matrix([[1], [2]]), False),
        (Matrix([[1]]), Integer(1), False),
    ],
)
def test_numbers_are_equal_to_the_last_digit(gold, answer, equal):
    assert equal_numbers(gold, answer) is equal


@pytest.mark.parametrize(
    ("decimal", "number", "equal"),
    [
        ("3.141593", pi, True),
        ("3.1415926", pi, True),
        ("3.141594", pi, False),
        ("3.14159", pi, False),
        ("0.017452", sin(pi / 180), True),
        ("0.0000003", pi / 10**7, False),
        ("0.333333", Rational(1, 3), False),
    ],
)
def test_a_gold_decimal_stands_for_an_irrational_number_with_its_digits(decimal, number, equal):
    assert equal_numbers(Rational(decimal), number) is equal
    # A gold answer that is exact asks for an exact one.
    assert not equal_numbers(number, Rational(decimal))


def test_a_percent_sign_does_not_count_and_does():
    hundredth = UnevaluatedExpr(Rational(1, 100))
    percentage = Mul(Rational(25, 2), hundredth, evaluate=False)
    assert equal_numbers(percentage, Rational(25, 2))
    assert equal_numbers(Rational(1, 8), percentage)
    assert not equal_numbers(Rational(1, 80), percentage)


def test_decimals_become_fractions_and_lists_keep_their_order():
    listed = with_fractions(FiniteSet(Integer(3), Float("0.5"), Integer(1)))
    assert listed._unsorted_args == [3, Rational(1, 2), 1]
    chain = with_fractions(And(Float("0.5") < x, x < 1))
    assert chain._unsorted_args == [Rational(1, 2) < x, x < 1]
    assert with_fractions(Matrix([[Float("0.1")]])) == Matrix([[Rational(1, 10)]])
    assert with_fractions(x + 1) == x + 1
