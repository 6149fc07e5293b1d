r"""Find the answer in a response, and read numbers, words and bases out of it.

Everything here is text in, text or number out; what it does not recognise is mathematics and goes
to math-verify.
"""

import re
from decimal import Decimal
from typing import NamedTuple

# Longer answers are babble, unless they are integers.
LONGEST = 2_000
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
MACROS = (
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname|hbox)"
    r"(?![a-zA-Z])\s*"
)
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{\s*\}")
WORDED = re.compile(MACROS + r"\{([^{}]*)\}(\s*\^\s*\{?[0-9]\}?)?")
WORD = r"[^\W\d_]+"
WORDS = re.compile(rf"{WORD}(?:[\s.,;:!?'()\-]+{WORD})*")
# Without a text macro: beside a single letter every other sign is one of a formula.
SPACED_WORDS = re.compile(rf"(\()?\s*{WORD}(?:\s+{WORD})*\s*(?(1)\))\s*[.,;:?]?")
LONG_WORD = r"[^\W\d_]{3,}"
JOINED_WORDS = re.compile(rf"{LONG_WORD}(?:[\s.,;:!?'\-]+{LONG_WORD})*[.,;:!?]?")
COMMA = re.compile(r",\s*\\!\s*|\{,\}")
THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3})((?:(?:\\,|,)\d{3})+)(?!\d)")
SPACE = r"(?:\s|~|\\[ ,;:!]|\\q?quad(?![a-zA-Z]))"
# `\frac 5 9` and `137 1/2` are numbers.
EMPTY_MACRO = re.compile(MACROS + r"\{\s*\}")
SPACED_DIGITS = re.compile(rf"(?<!frac)(?<!frac )\d{SPACE}+\d+(?!\d)(?!\s*/)")
DEGREES = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|°)(?:\s*[CF](?![a-zA-Z]))?")
POWER_OF_TEN = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
# Single letters are variables unless a text macro says otherwise.
UNITS = (
    r"(?:sq(?:uare|\.)?\s*|cubic\s*)?"
    r"(?:degrees?|deg|radians?|rad|units?|percent|points?|dollars?|cents?|people|ways"
    r"|[kcm]m|(?:kilo|centi|milli)?met(?:er|re)s?|in|inch(?:es)?|ft|foot|feet|yards?|yd|mi|miles?"
    r"|mph|km/h|m/s|ft/s|kg|(?:kilo|milli)?grams?|lbs?|pounds?|oz|ounces?|lit(?:er|re)s?|gallons?"
    r"|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|months?|years?)"
    r"(?:\s*\^\s*\{?[23]\}?)?"
)
NUMBER = re.compile(
    rf"(?P<sign>[+-]?)\s*(?P<digits>\d+\.?\d*|\.\d+)\s*"
    rf"(?:(?P<ten>{'|'.join(POWER_OF_TEN)})\s*)?(?:\\?%|{UNITS})?\.?",
    re.IGNORECASE,
)
BASED = re.compile(r"([0-9A-Za-z]+)\s*_\s*\{?\s*(\d+)\s*\}?")


class Box(NamedTuple):
    """The last box of a response: its content, None without one, or that it was never closed."""

    content: str | None
    unterminated: bool = False


def last_box(text: str) -> Box:
    r"""The last balanced `\boxed{}` or `\fbox{}` that is not empty.

    A box opened after it and never closed is the answer that was being written: nothing before it
    is taken instead.
    """
    text = EMPTY_BOX.sub("", text)
    closing = _closing_braces(text)
    # Backwards: a box that stays open around later complete ones does not hide them.
    for match in reversed(list(BOX.finditer(text))):
        end = closing.get(match.end() - 1)
        if end is None:
            return Box(None, unterminated=True)
        content = _stripped(text[match.end() : end])
        if len(content) > LONGEST or not is_blank(content):
            return Box(content)
    return Box(None)


def is_blank(content: str) -> bool:
    """Whether a box holds nothing that shows."""
    return re.sub(rf"{SPACE}|[${{}}]|\\boxed|\\fbox|{MACROS}", "", content) == ""


def is_babble(answer: str) -> bool:
    """Whether an answer is too long to be read: it would cost more than all others together."""
    return len(answer) > LONGEST and re.fullmatch(r"[+-]?[0-9]+", answer) is None


def strip_outer(answer: str) -> str:
    r"""An answer without what typesets it: `$`, `\(…\)`, outer braces, spaces, a closing period."""
    answer = (
        answer.replace("−", "-").replace("–", "-").replace(r"\displaystyle", "").replace(r"\!", "")
    )
    while True:
        bare = _stripped(_stripped(answer.replace(r"\$", "")).strip("$"))
        for left, right in ((r"\(", r"\)"), (r"\[", r"\]"), ("{", "}")):
            inner = bare[len(left) : -len(right)]
            if bare.startswith(left) and bare.endswith(right) and _is_balanced(inner):
                bare = inner
        if bare == answer:
            return answer
        answer = bare


def parse_number(answer: str) -> Decimal | None:
    r"""The plain decimal number an answer is, exactly, or None.

    Thousands marks, `\text{}`, units, degree and percent signs, leading zeros and `.0` do not
    count. Marks must part groups of three, so that `1,2` stays a list and `7 3` two numbers.
    """
    plain = strip_outer(COMMA.sub(",", DEGREES.sub("", answer)))
    plain = THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[0]), WORDED.sub(_unit_out, plain))
    plain = re.sub(rf"{SPACE}+", " ", plain)
    match = NUMBER.fullmatch(strip_outer(plain))
    if match is None or not plain.isascii():
        return None
    number = Decimal(match["sign"] + match["digits"])
    return number.scaleb(POWER_OF_TEN[match["ten"].lower()]) if match["ten"] else number


def is_integer(number: Decimal) -> bool:
    """Whether a number has no fraction, exactly and for any number of digits."""
    return number == number.to_integral_value()


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


def count_primes(answer: str) -> int:
    """How many primes stand behind names, which math-verify leaves out."""
    formula = re.sub(r"\^\s*\{?\s*\\prime\s*\}?", "'", WORDED.sub(" ", answer))
    return sum(len(match) for match in re.findall(r"(?<=[^\W\d_])'+", formula))


def plain_formula(answer: str) -> str:
    """An answer as it is handed to a parser of formulas: numbers spelled out, no typesetting."""
    number = parse_number(answer)
    if number is not None:
        return f"{number:f}\\%" if "%" in answer else f"{number:f}"
    return re.sub(r"(?<!\d)(\d+) +(\d+) */ *(\d+)", r"\1\\frac{\2}{\3}", strip_outer(answer))


def comparable(answer: str | None) -> str | None:
    """The form in which answers vote: equal numbers and equal words are one answer."""
    if answer is None or is_babble(answer):
        return answer
    number = parse_number(answer)
    if number is not None:
        digits = f"{number:f}"
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    words = parse_words(answer)
    if words is not None:
        return words
    formula = re.sub(r"\\[dt]frac", r"\\frac", strip_outer(answer))
    return re.sub(r"\\left|\\right|\\[,;:! ]|\s", "", formula)


def _stripped(text: str) -> str:
    """A text without the spaces around it, a last control space included."""
    return re.sub(r"(?<!\\)((?:\\\\)*)\\$", r"\1", text.strip()).strip()


def _closing_braces(text: str) -> dict[int, int]:
    """Where each opening brace that is closed is closed; escaped braces are characters."""
    closing, opened = {}, []
    for match in BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def _is_balanced(text: str) -> bool:
    """Whether every brace of a text closes within it."""
    return _closing_braces(f"{{{text}}}").get(0) == len(text) + 1


def _unit_out(match: re.Match[str]) -> str:
    """A text macro's content where it holds a number, or nothing where it holds a unit."""
    content, power = match[1], match[2] or ""
    if re.search(r"\d", content):
        if not any(word in content.lower() for word in POWER_OF_TEN):
            content = re.sub(r"(?<=\d)[\sA-Za-z.]+$", "", content)
        return f" {content} {power}"
    return f" {content} " if any(word in content.lower() for word in POWER_OF_TEN) else " "
