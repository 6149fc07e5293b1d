r"""Numbers with their units: how much an answer says there is, and of what.

Everything here is text in plain LaTeX in, text or number out.
"""

import re
from decimal import MAX_PREC, Decimal, localcontext
from fractions import Fraction

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
# `2(3)`, `(2)(3)` and `2\binom{5}{2}`: a parser of formulas takes what stands beside a number for a
# fraction to add.
FACTORS = re.compile(
    r"((?<![\w.^])\d+(?:\.\d+)?|\))\s*(?=\(|\{?\\[dt]?binom)|(\})\s*(?=\{?\\[dt]?binom)"
)
REPEATING = re.compile(
    r"(?<![\d.])(?<!\d,)(\d*)\.(\d*)\\(?:overline|bar)\s*\{\s*(\d+)\s*\}(?!\.?\d)"
)
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
PAIR = re.compile(r"(?<![\\a-zA-Z])[a-zA-Z]{2}(?![a-zA-Z])")
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
    """The unit that an answer ends in, or else that of its currency signs, by one name, or None."""
    quantity = _split(answer)
    words = re.sub(r"\s+", " ", _unworded(strip_outer(answer))).strip()
    if quantity:
        phrase = quantity[1]
    else:
        match = LAST_WORDS.search(words)
        phrase = match[1] if match and not _holds_product(match[1], answer) else ""
    return units.unit_of(phrase) if phrase else units.currency_of(words)


def has_percent(answer: str) -> bool:
    """Whether a number is in percent."""
    return PERCENT.search(answer) is not None


def is_integer(number: Decimal) -> bool:
    """Whether a number has no fraction, exactly and for any number of digits."""
    return number == number.to_integral_value()


def without_currency(answer: str) -> str:
    """An answer without its currency signs."""
    return units.CURRENCY_SIGN.sub("", answer)


def with_names(answer: str) -> str:
    """A formula in which units of one letter are names, as single letters of a formula are."""
    return LETTER.sub(r" \1", strip_outer(answer))


def without_units(formula: str) -> str:
    """A formula without the units and nouns that stand behind its numbers and at its end."""
    formula = COMPOUND.sub(_compound_out, without_currency(formula))
    # What is no unit of one letter is a name.
    formula = with_names(WORDED.sub(_unit_out, formula))
    match = LAST_WORDS.search(formula)
    if match is None or not units.is_unit(match[1]) or _holds_product(match[1], match[1]):
        return formula
    return formula[: match.start()]


def plain_quantity(answer: str) -> str:
    """An answer with its number spelled out, and without the units behind its numbers."""
    number = parse_number(answer)
    if number is not None:
        return f"{number:f}\\%" if has_percent(answer) else f"{number:f}"
    formula = SCIENTIFIC.sub(r"\1 \\cdot 10^{\2}", without_units(strip_outer(answer)))
    formula = REPEATING.sub(_fraction, formula)
    if "," not in formula:
        formula = FACTORS.sub(r"\1\2 \\cdot ", formula)
    formula = IMAGINARY.sub(" i", formula)
    return MIXED.sub(r"\1\\frac{\2}{\3}", formula)


def _split(answer: str) -> tuple[Decimal, str] | None:
    """A number and the words of its unit; None where an answer is anything else."""
    plain = _unworded(strip_outer(COMMA.sub(",", DEGREES.sub("", answer))))
    if plain.lstrip().startswith("~"):
        # About.
        return None
    plain = THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[0]), plain)
    plain = strip_outer(re.sub(rf"{SPACE}+", " ", without_currency(plain)))
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
    apart = rest.startswith(" ")
    # A formula needs no space there: any unit may be meant.
    phrase = units.spell_letters(phrase) if apart else phrase
    if _holds_product(phrase, answer, apart=apart):
        return None
    named = re.fullmatch(r"|\\?%", phrase) or units.is_unit(
        phrase, one=abs(number) == 1, measured=not apart
    )
    return (number, phrase) if named else None


def _holds_product(phrase: str, answer: str, *, apart: bool = False) -> bool:
    """Whether a phrase of an answer holds two letters that are a product there, no unit or word."""
    pairs = set(PAIR.findall(WORDED.sub(" ", answer))) - units.PAIRS
    products = {pair for pair in pairs if pair.lower() not in units.FUNCTION_WORDS}
    if apart:
        products = {pair for pair in products if units.unit_of(pair) is None}
    # What a unit is divided by is one: `mi/hr`.
    return not products.isdisjoint(PAIR.findall(re.split(r"/|\bper\b", phrase)[0]))


def _fraction(match: re.Match[str]) -> str:
    """A repeating decimal as the fraction that it is."""
    whole, places, repeated = match.groups()
    once = int(f"0{whole}{places}")
    value = Fraction(
        int(f"{whole}{places}{repeated}") - once, 10 ** len(places) * (10 ** len(repeated) - 1)
    )
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


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
