r"""Read words, bases and signs out of an answer in plain LaTeX.

Everything here is text in, text out; what it does not recognise is mathematics and goes to
math-verify.
"""

import re

from oprd.evaluation.boxes import LONGEST
from oprd.evaluation.quantities import (
    MACROS,
    SPACE,
    WORDED,
    parse_number,
    strip_outer,
    without_currency,
    without_units,
)
from oprd.evaluation.typography import plain_latex
from oprd.evaluation.units import FUNCTION_WORDS

WORD = r"[^\W\d_]+"
WORDS = re.compile(rf"{WORD}(?:[\s.,;:!?'()\-]+{WORD})*")
# Without a text macro: beside a single letter every other sign is one of a formula.
SPACED_WORDS = re.compile(rf"(\()?\s*{WORD}(?:\s+{WORD})*\s*(?(1)\))\s*[.,;:?]?")
LONG_WORD = r"[^\W\d_]{3,}"
JOINED_WORDS = re.compile(rf"{LONG_WORD}(?:[\s.,;:!?'\-]+{LONG_WORD})*[.,;:!?]?")
# `\frac 5 9` and `137 1/2` are numbers.
EMPTY_MACRO = re.compile(MACROS + r"\{\s*\}")
SPACED_DIGITS = re.compile(rf"(?<!frac)(?<!frac )\d{SPACE}+\d+(?!\d)(?!\s*/)")
BASED = re.compile(r"([0-9A-Za-z]+)\s*_\s*\{?\s*(\d+)\s*\}?")
# Macros whose content are words, and not the name of a function.
TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|hbox)(?![a-zA-Z])\s*\{([^{}]*)\}"
)
# What stands before a number or an equals sign to name it.
NAME = re.compile(rf"\s*(?:{MACROS}\{{[^{{}}]*\}}|[A-Za-z ]+)\s?[=:]")
# A parser of formulas drops what stands behind a number, whatever it says.
LAST_WORDS = re.compile(rf"(?<=[\d}})])\s*{MACROS}\{{([^{{}}]*)\}}\s*$")
FUNCTIONS = {"max", "min", "mod"}
JOINING = {"and", "or"}


def is_babble(answer: str) -> bool:
    """Whether an answer is too long to be read: it would cost more than all others together."""
    return len(answer) > LONGEST and re.fullmatch(r"[+-]?[0-9]+", answer) is None


def parse_words(answer: str) -> str | None:
    r"""The words of an answer that is words alone, in lower case, or None.

    `\text{(C)}`, `C` and `\text{C}.` are the same. Taken as products of letters, as a parser of
    formulas would, `east` and `seat` would be equal. `n!`, `f'` and `p - q` are formulas.
    """
    bare = WORDED.sub(" ", strip_outer(answer)).replace("~", " ").strip()
    plain = SPACED_WORDS.fullmatch(bare) or JOINED_WORDS.fullmatch(bare)
    if plain is None and re.search(WORD, bare):
        return None
    words = WORDED.sub(r" \1 ", strip_outer(answer)).replace("~", " ")
    if WORDS.fullmatch(words.strip(" .,;:!?()'")) is None:
        return None
    return " ".join(re.findall(WORD, words.casefold()))


def is_worded(answer: str) -> bool:
    """Whether an answer is meant as words: it says so, or it is longer than a product of names."""
    words = parse_words(answer)
    return words is not None and (WORDED.search(answer) is not None or len(words) > 3)


def parse_base(answer: str) -> tuple[str, str | None]:
    """The digits and the base of `4210_{5}`; the answer itself and None where no base stands."""
    match = BASED.fullmatch(strip_outer(answer))
    return (match[1].lstrip("0").upper(), match[2]) if match else (strip_outer(answer), None)


def has_spaced_digits(answer: str) -> bool:
    """Whether digits are parted by spaces alone, which a parser of formulas reads as a sum."""
    return SPACED_DIGITS.search(EMPTY_MACRO.sub(" ", answer)) is not None


def count_left_out(answer: str) -> tuple[int, int]:
    """How many primes behind names and ellipses there are: math-verify leaves both out."""
    formula = re.sub(r"\^\s*\{?\s*\\prime\s*\}?", "'", WORDED.sub(" ", answer))
    primes = sum(len(match) for match in re.findall(r"(?<=[^\W\d_])'+", formula))
    return primes, len(re.findall(r"\\[cl]?dots|\.\.\.", answer))


def qualifiers(answer: str) -> list[str]:
    r"""The words of a formula that are neither units nor names, in order: `\text{or more}`.

    A parser of formulas leaves them out. `and` and `or` part a list.
    """
    formula = NAME.sub(_without_name, without_units(strip_outer(answer)), count=1).casefold()
    last = LAST_WORDS.search(formula)
    if last is not None:
        formula = formula[: last.start()]
    said = re.findall(r"[^\W\d_]{2,}", " ".join(TEXT.findall(formula)))
    # Elsewhere a word may be the name of a function.
    others = " ".join(match[0] for match in WORDED.findall(TEXT.sub(" ", formula)))
    said += [word for word in re.findall("[a-z]{2,}", others) if word in FUNCTION_WORDS - FUNCTIONS]
    said += re.findall(WORD, last[1]) if last is not None else []
    return [word for word in said if word not in JOINING]


def comparable(answer: str | None) -> str | None:
    """The form in which answers vote: equal numbers and equal words are one answer."""
    if answer is None or is_babble(answer):
        return answer
    answer = without_currency(plain_latex(answer))
    number = parse_number(answer)
    if number is not None:
        digits = f"{number:f}"
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    words = parse_words(answer)
    if words is not None:
        return words
    formula = re.sub(r"\\[dt]frac", r"\\frac", strip_outer(answer))
    return re.sub(r"\\left|\\right|\\[,;:! ]|\s", "", formula)


def _without_name(match: re.Match[str]) -> str:
    words = re.findall(r"[a-z]+", WORDED.sub(r" \1 ", match[0].casefold()))
    return match[0] if FUNCTION_WORDS.intersection(words) else ""
