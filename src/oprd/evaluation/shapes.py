r"""Whether two formulas are things of one kind: a set, an interval, a pair, an equation.

math-verify takes `4 < x < 5` for the interval from 4 to 5, that for the pair (4, 5), and that for
the set of both. Here only what could be meant by both formulas may be equal.
"""

import re
from typing import Any, Literal, cast

from sympy import Add, And, Complement, Eq, FiniteSet, Interval, Ne, Tuple, Union
from sympy.core.relational import Relational

# `open` is what parentheses around two numbers are: an open interval or a pair. A list is written
# without any, and may be a set or a pair.
Shape = Literal["set", "interval", "pair", "open", "list"]
COMPATIBLE = [
    {"open", "interval"},
    {"open", "pair"},
    {"list", "open"},
    {"list", "pair"},
    {"list", "set"},
]
MEMBER = re.compile(r"\\in(?![a-zA-Z])")
VALUE = re.compile(r"=|\\in(?![a-zA-Z])")
EITHER = re.compile(r"\bor\b|\\lor(?![a-zA-Z])")
AS_WELL = re.compile(r",|\band\b|\\land(?![a-zA-Z])")
NAMED_PAIR = re.compile(r"\(\s*[a-zA-Z]\s*(?:,\s*[a-zA-Z]\s*)+\)\s*=")


def differ(gold: str, parsed_gold: Any, answer: str, parsed_answer: Any) -> bool:
    """Whether two formulas cannot mean the same kind of thing.

    Args:
        gold: the formula.
        parsed_gold: what the parser made of it.
        answer: another formula.
        parsed_answer: what the parser made of that.
    """
    if isinstance(parsed_gold, Eq) and isinstance(parsed_gold.lhs, Add):
        # The line x + y = 5 is no 5.
        return not isinstance(parsed_answer, Eq | And)
    expected, found = _shape(gold, parsed_gold), _shape(answer, parsed_answer)
    if expected is None or found is None or expected == found:
        return False
    if expected == "interval" and _is_inequality(parsed_gold) and _has_points(parsed_gold):
        expected = "set"
    return expected != found and {expected, found} not in COMPATIBLE


def as_region(formula: str, parsed: Any) -> Any:
    """What the parser made of `x < 2 or x > 3`, two inequalities, as the numbers that they leave.

    Anything else, and what has more unknowns than one or no solver, comes back as it was: joined by
    a comma inequalities may hold together.
    """
    if not EITHER.search(formula) or AS_WELL.search(formula):
        return parsed
    if not isinstance(parsed, FiniteSet) or len(parsed.free_symbols) != 1:
        return parsed
    if not all(map(_is_inequality, parsed.args)):
        return parsed
    try:
        return Union(*(cast(Any, inequality).as_set() for inequality in parsed.args))
    except Exception:  # whatever a solver does on a model's output
        return parsed


def _shape(formula: str, parsed: Any) -> Shape | None:
    """What a formula is; None for anything but the shapes that could be taken for one another."""
    if _is_inequality(parsed):
        return "interval"
    value = parsed.rhs if isinstance(parsed, Eq) else parsed
    written = VALUE.split(formula)[-1].strip()
    if isinstance(value, Union | Complement):
        return "interval"
    if isinstance(value, Interval | Tuple):
        if NAMED_PAIR.match(formula):
            return "pair"
        bounded = isinstance(value, Tuple) or (value.is_open and value.measure.is_finite)
        return "open" if bounded and not MEMBER.search(formula) else "interval"
    if not isinstance(value, FiniteSet):
        return None
    named = any(isinstance(element, Eq) for element in value.args)
    return "set" if named or (written.startswith(r"\{") and written.endswith(r"\}")) else "list"


def _is_inequality(parsed: Any) -> bool:
    relations = parsed.args if isinstance(parsed, And) else [parsed]
    return all(
        isinstance(relation, Relational) and not isinstance(relation, Eq | Ne)
        for relation in relations
    )


def _has_points(inequality: Any) -> bool:
    """Whether an inequality holds at single points alone."""
    try:
        solved = inequality.as_set()
    except Exception:  # what has more unknowns, or no solver, is no set of points
        return False
    return isinstance(solved, FiniteSet)
