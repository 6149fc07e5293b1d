r"""Read numbers, words and bases out of an answer in plain LaTeX.

Everything here is text in, text or number out; what it does not recognise is mathematics and goes
to math-verify.
"""

import re
from decimal import MAX_PREC, Decimal, localcontext

from oprd.evaluation import units
from oprd.evaluation.boxes import LONGEST, is_balanced, stripped
from oprd.evaluation.typography import plain_latex

MACROS = (
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname|hbox)"
    r"(?![a-zA-Z])\s*"
)
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
MULTIPLES = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
MULTIPLE = re.compile(rf"\s*({'|'.join(MULTIPLES)})(?![a-zA-Z])", re.IGNORECASE)
NUMBER = re.compile(
    r"(?P<number>[+-]?\s*(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,4}(?![\d.]))?)(?P<rest>\D.*|)",
    re.DOTALL,
)
SCIENTIFIC = re.compile(r"(?<![\w.])(\d+\.?\d*|\.\d+)[eE]([+-]?\d{1,4})(?![\w.])")
LABEL = re.compile(
    r"(?:the\s+)?(?:final\s+)?(?:answer|result|solution|value|total)\s*(?:is\b\s*:?|:|=|equals\b)\s*",
    re.IGNORECASE,
)
PERCENT = re.compile(r"%|\bpercent(?:age)?\b", re.IGNORECASE)
FRACTION_OF_UNITS = re.compile(
    r"\\[dt]?frac\s*\{\s*(" + MACROS + r"\{[^{}]*\})\s*\}\s*\{\s*(" + MACROS + r"\{[^{}]*\})\s*\}"
)
# What a unit may stand behind: the end of a number, of a name or of a macro's argument.
QUANTITY_END = re.compile(r"[\w})!'|]\s*$")
LIST_WORD = re.compile(r"(?:,|\b(?:and|or))\s*$", re.IGNORECASE)
PLAIN_UNIT = re.compile(
    r"(?<=[\d})\sA-Za-z])(?<![\\A-Za-z])\s*((?:[A-Za-z.]{2,}(?:\^\{?\d\}?)?[\s/]*)+)$"
)
# Macros whose content are words, and not the name of a function.
TEXT = re.compile(
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|hbox)(?![a-zA-Z])\s*\{([^{}]*)\}"
)
NAMED = re.compile(r"(?:" + MACROS + r"\{[^{}]*\}|[A-Za-z ]+)\s*[=:]")
PLAIN_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}(?![A-Za-z])|(?:^|(?<=\s))[A-Za-z]{2}(?=\s|$)")
FUNCTIONS = {"max", "min", "mod"}
JOINING = {"and", "or"}
BASED = re.compile(r"([0-9A-Za-z]+)\s*_\s*\{?\s*(\d+)\s*\}?")


def is_babble(answer: str) -> bool:
    """Whether an answer is too long to be read: it would cost more than all others together."""
    return len(answer) > LONGEST and re.fullmatch(r"[+-]?[0-9]+", answer) is None


def strip_outer(answer: str) -> str:
    r"""An answer without what typesets it: `\(…\)`, outer braces, spaces, a closing period."""
    answer = answer.replace(r"\!", "")
    while True:
        bare = stripped(answer)
        for left, right in ((r"\(", r"\)"), (r"\[", r"\]"), ("{", "}")):
            inner = bare[len(left) : -len(right)]
            if bare.startswith(left) and bare.endswith(right) and is_balanced(inner):
                bare = inner
        if bare == answer:
            return answer
        answer = bare


def parse_number(answer: str) -> Decimal | None:
    r"""The plain decimal number an answer is, exactly, or None.

    Thousands marks, `\text{}`, units, nouns, degree and percent signs, leading zeros and `.0` do
    not count. Marks must part groups of three, so that `1,2` stays a list and `7 3` two numbers.
    Any other word does count: `4 or more` is no number.
    """
    quantity = _split(answer)
    return quantity[0] if quantity else None


def parse_unit(answer: str) -> str | None:
    """The unit of measurement that an answer ends in, by one name, or None."""
    quantity = _split(answer)
    if quantity:
        return units.unit_of(quantity[1])
    match = PLAIN_UNIT.search(_unworded(strip_outer(answer)))
    return units.unit_of(match[1]) if match else None


def has_percent(answer: str) -> bool:
    """Whether a number is in percent."""
    return PERCENT.search(answer) is not None


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


def count_left_out(answer: str) -> tuple[int, int]:
    """How many primes behind names and how many ellipses stand there: math-verify leaves them out."""
    formula = re.sub(r"\^\s*\{?\s*\\prime\s*\}?", "'", WORDED.sub(" ", answer))
    primes = sum(len(match) for match in re.findall(r"(?<=[^\W\d_])'+", formula))
    return primes, len(re.findall(r"\\[cl]?dots|\.\.\.", answer))


def qualifiers(answer: str) -> list[str]:
    r"""The words of a formula that are neither units nor names, in order: `\text{or more}`.

    A parser of formulas leaves them out or takes them for factors. `and` and `or` part a list.
    """
    formula = NAMED.sub(_without_name, _without_units(strip_outer(answer)), count=1)
    words = " ".join(TEXT.findall(formula)).casefold()
    plain = PLAIN_WORD.findall(WORDED.sub(" ", formula).casefold())
    named = " ".join(match[0] for match in WORDED.findall(TEXT.sub(" ", formula))).casefold()
    doubtful = [*plain, *re.findall(r"[a-z]{2,}", named)]
    found = re.findall(r"[^\W\d_]{2,}", words) + [
        word for word in doubtful if word in units.FUNCTION_WORDS and word not in FUNCTIONS
    ]
    return [word for word in found if word not in JOINING]


def plain_formula(answer: str) -> str:
    """An answer as it is handed to a parser of formulas: numbers spelled out, no units."""
    number = parse_number(answer)
    if number is not None:
        return f"{number:f}\\%" if has_percent(answer) else f"{number:f}"
    formula = _without_units(strip_outer(answer))
    formula = SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", formula)
    return re.sub(r"(?<!\d)(\d+) +(\d+) */ *(\d+)", r"\1\\frac{\2}{\3}", formula)


def comparable(answer: str | None) -> str | None:
    """The form in which answers vote: equal numbers and equal words are one answer."""
    if answer is None or is_babble(answer):
        return answer
    answer = plain_latex(answer)
    number = parse_number(answer)
    if number is not None:
        digits = f"{number:f}"
        return digits.rstrip("0").rstrip(".") if "." in digits else digits
    words = parse_words(answer)
    if words is not None:
        return words
    formula = re.sub(r"\\[dt]frac", r"\\frac", strip_outer(answer))
    return re.sub(r"\\left|\\right|\\[,;:! ]|\s", "", formula)


def _split(answer: str) -> tuple[Decimal, str] | None:
    """A number and the words of its unit; None where an answer is anything else."""
    plain = _unworded(strip_outer(COMMA.sub(",", DEGREES.sub("", answer))))
    if plain.lstrip().startswith("~"):
        # About.
        return None
    plain = THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[0]), plain)
    plain = strip_outer(re.sub(rf"{SPACE}+", " ", units.CURRENCY_SIGN.sub("", plain)))
    match = NUMBER.fullmatch(units.CURRENCY_CODE.sub("", LABEL.sub("", plain, count=1)))
    if match is None:
        return None
    number, rest = Decimal(match["number"].replace(" ", "")), match["rest"]
    while multiple := MULTIPLE.match(rest):
        # At full precision: Decimal's default would round a long number.
        with localcontext(prec=MAX_PREC):
            number *= MULTIPLES[multiple[1].lower()]
        rest = rest[multiple.end() :]
    phrase = rest.strip().rstrip(".").strip()
    named = re.fullmatch(r"|\\?%", phrase) or units.is_unit(
        phrase, one=abs(number) == 1, measured=not rest.startswith(" ")
    )
    return (number, phrase) if named else None


def _unworded(text: str) -> str:
    """A text with the contents of its text macros in their places, units of one letter by name."""
    text = FRACTION_OF_UNITS.sub(r"\1/\2", text)
    return WORDED.sub(lambda match: f" {units.spell_letters(match[1])} {match[2] or ''}", text)


def _without_units(formula: str) -> str:
    """A formula without the units and nouns that stand behind its numbers and at its end."""
    formula = units.CURRENCY_SIGN.sub("", FRACTION_OF_UNITS.sub(r"\1/\2", formula))
    formula = WORDED.sub(_unit_out, re.sub(rf"(?<=\}})\s*/\s*(?={MACROS})", "", formula))
    match = PLAIN_UNIT.search(formula)
    return formula[: match.start()] if match and units.is_unit(match[1]) else formula


def _unit_out(match: re.Match[str]) -> str:
    """Nothing where a text macro holds a unit, and what parts a list where it holds that too."""
    content = units.spell_letters(match[1])
    joined = LIST_WORD.search(content)
    phrase = content[: joined.start()] if joined else content
    if not QUANTITY_END.search(match.string[: match.start()]) or not units.is_unit(phrase):
        return match[0]
    return rf"\text{{ {joined[0].strip()} }}" if joined else " "


def _without_name(match: re.Match[str]) -> str:
    words = re.findall(r"[a-z]+", WORDED.sub(r" \1 ", match[0].casefold()))
    return match[0] if units.FUNCTION_WORDS.intersection(words) else ""
