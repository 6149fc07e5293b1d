r"""Whether a response answers its problem: a verdict, its status and the answer it was read from.

The answer is the last `\boxed{}` after the reasoning. Integers are compared as integers, words as
words, everything else by math-verify.
"""

import re
import reprlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from numbers import Number
from typing import get_args

import numpy as np

from oprd.evaluation import answers, quantities, units
from oprd.evaluation.boxes import last_box
from oprd.evaluation.thoughts import answer_part
from oprd.evaluation.typography import plain_latex
from oprd.evaluation.verify import Status, verify

# Raised with every change of a verdict.
VERSION = 4


@dataclass(frozen=True)
class Grade:
    """The verdict on one response.

    Attributes:
        correct: whether the answer equals the gold answer.
        status: why. `"truncated"` is set by the evaluator, which knows the finish reason, and
            `"grader_error"` and `"timeout"` by what calls the grader.
        extracted: the answer as it stands in the response, or None where there is none.
    """

    correct: bool
    status: Status
    extracted: str | None = None

    @classmethod
    def of(cls, correct: bool, extracted: str | None) -> "Grade":
        """The grade of an answer that was found and compared."""
        return cls(correct, "correct" if correct else "wrong", extracted)


class NoVerdict(TypeError):
    """What a grader returned says nothing about the answer."""


def as_grade(verdict: object) -> Grade:
    """What a grader may return, as a grade: a `Grade`, True or False, or 1 or 0.

    Raises:
        NoVerdict: it is none of these.
    """
    if isinstance(verdict, Grade) and verdict.status in get_args(Status):
        # As files hold them, whatever a grader made them of.
        extracted = None if verdict.extracted is None else str(verdict.extracted)
        return Grade(bool(verdict.correct), verdict.status, extracted)
    # NumPy's truth values are no numbers, and partial scores no verdicts.
    if isinstance(verdict, Number | np.bool_) and verdict in (0, 1):
        return Grade.of(bool(verdict), None)
    raise NoVerdict(
        f"returned {reprlib.repr(verdict)}, which is neither a Grade with a known status, True or "
        "False, nor 1 or 0,"
    )


def grade(text: str, gold: str) -> Grade:
    """Grade a response against a gold answer. Safe to call from threads and processes.

    Raises:
        ImportError: a formula is to be compared and math-verify is not installed.
    """
    if not text.strip():
        return Grade(False, "empty")
    box = last_box(answer_part(text))
    if box.unterminated:
        return Grade(False, "unterminated")
    if box.content is None:
        return Grade(False, "no_box")
    status = compare_answers(box.content, gold)
    return Grade(status == "correct", status, box.content)


def compare_answers(answer: str, gold: str) -> Status:
    """Compare an extracted answer with a gold answer."""
    if answers.is_babble(answer):
        return "parse_error"
    answer, gold = plain_latex(answer), plain_latex(gold)
    if units.differ(quantities.parse_unit(answer), quantities.parse_unit(gold)):
        return "wrong"
    answer, gold = quantities.without_currency(answer), quantities.without_currency(gold)
    number, expected = quantities.parse_number(answer), quantities.parse_number(gold)
    if number is not None and expected is not None:
        if number == expected:
            return "correct"
        # As a fraction of one a percentage is math-verify's.
        shares = quantities.has_percent(gold), quantities.has_percent(answer)
        if not any(shares) or (quantities.is_integer(expected) and not shares[0]):
            return "wrong"
    words = answers.parse_words(gold)
    if words is not None and words == answers.parse_words(answer):
        return "correct"
    if answers.is_worded(gold):
        return "wrong"
    if answers.count_left_out(answer) != answers.count_left_out(gold):
        return "wrong"
    (digits, base), (gold_digits, gold_base) = answers.parse_base(answer), answers.parse_base(gold)
    if base is not None and gold_base is not None:
        return "correct" if (digits, base) == (gold_digits, gold_base) else "wrong"
    formula, gold_formula = quantities.plain_quantity(answer), quantities.plain_quantity(gold)
    if answers.has_spaced_digits(answer) or answers.has_spaced_digits(formula):
        return "wrong"
    status = verify(gold_formula, formula)
    counted = gold if number is None else answer
    if status == "wrong" and (number is None) != (expected is None) and re.search("[a-z]", counted):
        # What is a unit in one of them may be a name in the other: `2 m` and `2m`.
        status = verify(quantities.with_names(gold), quantities.with_names(answer))
    # math-verify has passed over words.
    if status == "correct" and answers.qualifiers(answer) != answers.qualifiers(gold):
        return "wrong"
    return status


def check_gold(gold: str) -> None:
    """Make sure that a gold answer is one that a response can give.

    Raises:
        ValueError: it is empty, cannot be parsed, or does not equal itself.
    """
    # Whole numbers do, and most gold answers are one.
    if gold.strip().removeprefix("-").isdecimal():
        return
    status = compare_answers(gold, gold) if gold.strip() else "parse_error"
    if status == "parse_error":
        raise ValueError(f"the gold answer {gold!r} cannot be parsed")
    if status != "correct":
        raise ValueError(f"the gold answer {gold!r} does not equal itself ({status})")


def grader_name() -> str:
    """The grader with its version and that of math-verify, for the record of an evaluation."""
    try:
        return f"oprd {VERSION}, math-verify {version('math-verify')}"
    except PackageNotFoundError:
        return f"oprd {VERSION}, without math-verify"
