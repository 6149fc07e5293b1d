r"""Numbers with their units: how much an answer says there is, and of what.

Everything here is text in plain LaTeX in, text or number out.
"""

import re
from decimal import MAX_PREC, Decimal, localcontext

from oprd.evaluation import units
from oprd.evaluation.boxes import is_balanced, stripped

MACROS = (
    r"\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname|hbox)"
    r"(?![a-zA-Z])\s*"
)
WORDED = re.compile(MACROS + r"\{([^{}]*)\}(\s*\^\s*\{?[0-9]\}?)?")
COMMA = re.compile(r",\s*\\!\s*|\{,\}")
THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3})((?:(?:\\,|,)\d{3})+)(?!\d)")
SPACE = r"(?:\s|~|\\[ ,;:!]|\\q?quad(?![a-zA-Z]))"
DEGREES = re.compile(r"(?:\^\s*\{?\s*\\circ\s*\}?|\\degree|°)(?:\s*[CF](?![a-zA-Z]))?")
PERCENT = re.compile(r"%|\bpercent(?:age)?\b", re.IGNORECASE)
MULTIPLES = {
    "dozen": 12,
    "hundred": 10**2,
    "thousand": 10**3,
    "million": 10**6,
    "billion": 10**9,
    "trillion": 10**12,
}
MULTIPLE = re.compile(rf"\s*({'|'.join(MULTIPLES)})(?![a-zA-Z])", re.IGNORECASE)
# An exponent of more digits would cost more to write out than any answer is worth.
EXPONENT = r"[eE]([+-]?\d{1,4})(?![\w.])"
NUMBER = re.compile(
    rf"(?P<number>[+-]?\s*(?:\d+\.?\d*|\.\d+)(?:{EXPONENT})?)(?P<rest>\D.*|)", re.DOTALL
)
SCIENTIFIC = re.compile(rf"(?<![\w.])(\d+\.?\d*|\.\d+){EXPONENT}")
MIXED = re.compile(r"(?<!\d)(\d+) +(\d+) */ *(\d+)")
# `2(3)` and `(2)(3)`: beside a number a parser of formulas takes another one for a fraction to add.
FACTORS = re.compile(r"((?<![\w.^])\d+(?:\.\d+)?|\))\s*(?=\()")
LETTER = re.compile(rf"{MACROS}\{{\s*([a-zA-Z])\s*\}}")
# Right behind a digit a parser of formulas does not know it.
IMAGINARY = re.compile(r"(?<=\d)i(?![a-zA-Z])")
LABEL = re.compile(
    r"\s*(?:the\s+)?(?:final\s+)?(?:answer|result|solution|value|total)\s*(?:is\b\s*:?|[:=]|equals\b)\s*",
    re.IGNORECASE,
)
UNIT = rf"\s*{MACROS}\{{([^{{}}]*)\}}\s*"
COMPOUND = re.compile(rf"\\[dt]?frac\s*\{{{UNIT}\}}\s*\{{{UNIT}\}}|{UNIT}/{UNIT}")
# What a unit may stand behind: the end of a number, of a name or of a macro's argument.
QUANTITY_END = re.compile(r"[\w})!'|]\s*$")
LIST_WORD = re.compile(r"(?:,|\b(?:and|or))\s*$", re.IGNORECASE)
# In a formula single letters are variables.
LAST_WORDS = re.compile(
    r"(?:(?<=[\d})])|(?<=[\d})A-Za-z]\s))((?:[A-Za-z.]{2,}(?:\^\{?\d\}?)?(?:[\s/]+|$))+)$"
)


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
    words = re.sub(r"\s+", " ", _unworded(strip_outer(answer))).strip()
    match = LAST_WORDS.search(words)
    return units.unit_of(match[1]) if match else None


def has_percent(answer: str) -> bool:
    """Whether a number is in percent."""
    return PERCENT.search(answer) is not None


def is_integer(number: Decimal) -> bool:
    """Whether a number has no fraction, exactly and for any number of digits."""
    return number == number.to_integral_value()


def without_units(formula: str) -> str:
    """A formula without the units and nouns that stand behind its numbers and at its end."""
    formula = COMPOUND.sub(_compound_out, units.CURRENCY_SIGN.sub("", formula))
    # What is no unit of one letter is a name.
    formula = LETTER.sub(r" \1", WORDED.sub(_unit_out, formula))
    match = LAST_WORDS.search(formula)
    return formula[: match.start()] if match and units.is_unit(match[1]) else formula


def plain_quantity(answer: str) -> str:
    """An answer with its number spelled out, and without the units behind its numbers."""
    number = parse_number(answer)
    if number is not None:
        return f"{number:f}\\%" if has_percent(answer) else f"{number:f}"
    formula = SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", without_units(strip_outer(answer)))
    if "," not in formula:
        formula = FACTORS.sub(r"\1 \\cdot ", formula)
    formula = IMAGINARY.sub(" i", formula)
    return MIXED.sub(r"\1\\frac{\2}{\3}", formula)


def _split(answer: str) -> tuple[Decimal, str] | None:
    """A number and the words of its unit; None where an answer is anything else."""
    plain = _unworded(strip_outer(COMMA.sub(",", DEGREES.sub("", answer))))
    if plain.lstrip().startswith("~"):
        # About.
        return None
    plain = THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[0]), plain)
    plain = strip_outer(re.sub(rf"{SPACE}+", " ", units.CURRENCY_SIGN.sub("", plain)))
    label = LABEL.match(plain)
    match = NUMBER.fullmatch(units.CURRENCY_CODE.sub("", plain[label.end() :] if label else plain))
    if match is None:
        return None
    number, rest = Decimal(match["number"].replace(" ", "")), match["rest"]
    while multiple := MULTIPLE.match(rest):
        # At full precision: Decimal's default would round a long number.
        with localcontext(prec=MAX_PREC):
            number *= MULTIPLES[multiple[1].lower()]
        rest = rest[multiple.end() :]
    phrase = rest.strip().removesuffix(".").strip()
    named = re.fullmatch(r"|\\?%", phrase) or units.is_unit(
        phrase, one=abs(number) == 1, measured=not rest.startswith(" ")
    )
    return (number, phrase) if named else None


def _unworded(text: str) -> str:
    """A text with the contents of its text macros in their places, units of one letter by name."""
    text = COMPOUND.sub(lambda match: rf"\text{{{_per(match)}}}", text)
    return WORDED.sub(lambda match: f" {units.spell_letters(match[1])} {match[2] or ''}", text)


def _per(match: re.Match[str]) -> str:
    """Two units of which one is by the other."""
    return "/".join(part for part in match.groups() if part is not None)


def _compound_out(match: re.Match[str]) -> str:
    return " " if units.is_unit(units.spell_letters(_per(match)), measured=True) else match[0]


def _unit_out(match: re.Match[str]) -> str:
    """Nothing where a text macro holds a unit, and what parts a list where it holds that too."""
    if re.search(r"\d", match[1]) and not units.is_unit(match[1]):
        # Numbers are no words: a parser of formulas is to see them.
        return f" {match[1]} {match[2] or ''}"
    content = units.spell_letters(match[1])
    joined = LIST_WORD.search(content)
    phrase = content[: joined.start()] if joined else content
    if not QUANTITY_END.search(match.string[: match.start()]) or not units.is_unit(phrase):
        return match[0]
    return rf"\text{{ {joined[0].strip()} }}" if joined else " "
