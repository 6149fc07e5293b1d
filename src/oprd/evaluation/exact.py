"""Whether two numbers are equal, exactly: what math-verify rounds to six places is not.

Runs where formulas are compared, in a process that can be killed: exact powers may be huge.
"""

from typing import Any

from sympy import (
    And,
    Basic,
    Expr,
    Float,
    Integer,
    MatrixBase,
    MatrixExpr,
    Mul,
    Rational,
    UnevaluatedExpr,
)
from sympy.core.relational import Relational

# A decimal that stands for an irrational number says so by as many places and digits.
PLACES = 6
DIGITS = 5
# Digits to which a difference is evaluated before it counts as none.
PRECISION = 150
PERCENT = UnevaluatedExpr(Rational(1, 100))


def with_fractions(expression: Any) -> Any:
    """An expression with its decimals as the fractions that they are, digit by digit."""
    if isinstance(expression, Float):
        return Rational(str(expression))
    if not isinstance(expression, Basic | MatrixBase) or not expression.has(Float):
        return expression
    if isinstance(expression, MatrixBase):
        return expression.applyfunc(with_fractions)
    # The parser's own lists remember the order in which they were written.
    arguments = getattr(expression, "_unsorted_args", expression.args)
    # Evaluated, a relation between numbers would be true or false.
    options = {"evaluate": False} if isinstance(expression, Relational | And) else {}
    return expression.func(*map(with_fractions, arguments), **options)


def equal_numbers(gold: Any, answer: Any, *_: object) -> bool:
    """Whether two expressions are the same number, or matrices of the same numbers.

    A gold decimal of at least six places stands for any irrational number that has its digits.
    Takes the arguments of math-verify's own comparison of numbers.
    """
    if isinstance(gold, MatrixBase | MatrixExpr) or isinstance(answer, MatrixBase | MatrixExpr):
        return _equal_matrices(gold, answer)
    number, percentage = _without_percent(gold), _without_percent(answer)
    if number.is_Rational and percentage.is_Rational and number == percentage:
        return True
    gold, answer = gold.doit(), answer.doit()
    if gold.is_Rational and answer.is_Rational:
        return gold == answer
    difference = gold - answer
    if difference.free_symbols:
        return False
    return _is_zero(difference) or (gold.is_Rational and _is_rounding(gold, answer))


def _equal_matrices(gold: Any, answer: Any) -> bool:
    gold, answer = gold.doit(), answer.doit()
    return (
        isinstance(gold, MatrixBase)
        and isinstance(answer, MatrixBase)
        and gold.shape == answer.shape
        and all(equal_numbers(*pair) for pair in zip(gold.flat(), answer.flat(), strict=True))
    )


def _without_percent(number: Expr) -> Expr:
    """A number without its percent sign, which does not count where both are written alike."""
    if isinstance(number, Mul) and len(number.args) == 2 and number.args[1] == PERCENT:
        return number.args[0]
    return number


def _is_zero(number: Expr) -> bool:
    """Whether a number without symbols has no digit within the precision, however small it is."""
    real, imaginary = number.evalf(2, maxn=PRECISION).as_real_imag()
    # What cancelled to the last digit is left with a precision of one bit.
    return all(
        part == 0 or (isinstance(part, Float) and part._prec == 1) for part in (real, imaginary)
    )


def _is_rounding(decimal: Rational, number: Expr) -> bool:
    """Whether a decimal has all of its digits in common with a number that is no decimal."""
    places = 0
    while decimal.q > 1 and 10**places % decimal.q:
        places += 1
        if places > PRECISION:
            return False
    if places < PLACES or abs(decimal) * 10**places < 10 ** (DIGITS - 1):
        return False
    return bool(abs(number - decimal).evalf() < Rational(1, Integer(10) ** places))
