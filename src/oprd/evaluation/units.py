"""Units and nouns beside a number: what was measured or counted, and not how much of it.

Units of measurement are listed. Nouns are too many to list: a phrase counts as one where it ends in
a plural and holds none of the words that change what a number says ("not", "or more", "less than"),
which are of a few closed classes.
"""

import re

PREFIXES = {
    "kilo": "k", "centi": "c", "milli": "m", "deci": "d", "micro": "u", "nano": "n", "pico": "p",
    "hecto": "h", "deca": "da", "mega": "M", "giga": "G", "tera": "T",
}  # fmt: skip
# What a prefix may stand before, with its symbol.
PREFIXED = {
    "meter": "m", "metre": "m", "gram": "g", "gramme": "g", "liter": "L", "litre": "L",
    "second": "s", "watt": "W", "joule": "J", "newton": "N", "volt": "V", "ampere": "A",
    "amp": "A", "hertz": "Hz", "pascal": "Pa", "ohm": "Ohm", "calorie": "cal", "mole": "mol",
    "kelvin": "K", "byte": "B", "bit": "bit", "electronvolt": "eV", "coulomb": "C", "farad": "F",
}  # fmt: skip
# Each line is one unit, by all its names; the first one stands for it.
NAMED = """
inch inches in
foot feet ft
yard yards yd yds
mile miles mi
mile/hour mph
km/hour kph kmh kmph
nauticalmile/hour knot knots
acre acres
hectare hectares ha
ounce ounces oz
pound pounds lb lbs sterling gbp
ton tons
tonne tonnes
teaspoon teaspoons tsp
tablespoon tablespoons tbsp
cup cups
pint pints
quart quarts qt
gallon gallons gal
minute minutes min mins
hour hours hr hrs
s sec secs
day days
week weeks wk wks
fortnight fortnights
month months mo
year years yr yrs
decade decades
century centuries
am
pm
degree degrees deg
radian radians rad
revolution revolutions rev
turn turns
rpm
percent percentage pct
cent cents penny pennies
pence
dollar dollars usd buck bucks
euro euros eur
yen jpy
yuan rmb cny
rupee rupees rs inr
peso pesos
franc francs chf
ruble rubles rouble roubles
unit units
point points
person persons people
kwh
bar bars
atm
psi
ppm
db
lightyear lightyears
"""
# Outside of a text macro two letters are a product, as `mn` is, but for these, in these capitals:
# units that people write so, and `um`, which is what `µm` is spelled. `hr` and `mg` are left out:
# `2\pi hr` is the side of a cylinder, and `3mg` a weight.
FAMILIAR = """
cm mm km dm um kg ml mL dL in ft yd mi oz lb sq cu yr am pm Hz eV kW kJ kB MB GB TB Rs
"""
# Nouns whose plural has no s, and what is said for one.
IRREGULAR_PLURALS = """
people children men women mice feet geese teeth oxen sheep fish deer dice data cattle police
vertices indices matrices axes radii foci loci polyhedra criteria phenomena bacteria money water
each total altogether
"""
# They end as plurals do, and are none, or are parts and multiples of what they count.
FALSE_PLURALS = """
minus plus less unless perhaps always sometimes besides yes is was has does this thus its us as
across others ours theirs towards afterwards hundreds thousands millions billions trillions dozens
scores ones twos threes fours fives sixes sevens eights nines tens halves quarters negatives exceeds
equals means guess
"""
PART = re.compile(
    r"(?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth|\w+teenth|\w+tieth"
    r"|(?:hundred|thousand|million|billion|trillion)th)s?"
)
# What changes the number beside it, and no noun: negation, comparison, doubt, joining, place,
# pronouns, auxiliaries, numerals and operations.
CLOSED_CLASSES = """
not no non none never neither nor without cannot
less more fewer greater larger smaller higher lower bigger least most fewest above below under
over beyond within between exceeding up down max min maximum minimum
about around approximately approx roughly nearly almost circa maybe possibly probably likely
hardly barely
and or but if then than while until except whereas otherwise
of in on at to from by for with into off out since through during toward against among via
a an the that these those it they them he she we you either both any all some every another
other else several few many much only
are were be been being have had do did can could may might must shall should will would
zero one two three four five six seven eight nine ten eleven twelve twenty thirty forty fifty
sixty seventy eighty ninety hundred thousand million billion trillion half double twice triple
thrice quadruple dozen couple
score gross
squared cubed divided multiplied factorial mod modulo choose root
pi sqrt frac sin cos tan log exp infinity
"""
PLURALS = set(IRREGULAR_PLURALS.split())
FUNCTION_WORDS = {*CLOSED_CLASSES.split(), *FALSE_PLURALS.split()}
PAIRS = set(FAMILIAR.split())
LONGEST_PHRASE = 80
NOON = re.compile(r"\b([ap])\.\s*m\b\.?", re.IGNORECASE)
# The unit that a sign or a code names; None where it could be one of several, or is not listed.
CURRENCIES = {
    r"\textdollar": "dollar", "USD": "dollar", "US": "dollar", "CAD": None, "AUD": None,
    "€": "euro", r"\euro": "euro", r"\texteuro": "euro", "EUR": "euro",
    "£": "pound", r"\pounds": "pound", r"\textsterling": "pound", "GBP": "pound",
    "¢": "cent", r"\textcent": "cent",
    "¥": None, r"\yen": None, "JPY": "yen", "CNY": "yuan", "RMB": "yuan",
    "₹": "rupee", "INR": "rupee", "Rs": "rupee",
    "₽": "ruble", "₩": None, "CHF": "franc",
}  # fmt: skip
CURRENCY_SIGN = re.compile(
    r"[€£¥₹₩₽¢]|\\(?:pounds|euro|textdollar|textcent|textsterling|texteuro|yen)(?![a-zA-Z])"
)
CURRENCY_CODE = re.compile(
    r"(USD?|EUR|GBP|JPY|CNY|RMB|INR|CHF|CAD|AUD|Rs)(?![A-Za-z])\.?\s*(?=[-+.\d])"
)
POWER = re.compile(
    r"\s*\^\s*(?:\{\s*-?\s*\d\s*\}|-?\d)|(?<=[a-z])[23](?![\w.])|\s+(?:squared|cubed)\b"
)
SQUARE = re.compile(r"^(?:square|sq|cubic|cu)\s+")
PER = re.compile(r"\s*/\s*|\s+(?:per|a|an)\s+")
TIMES = re.compile(r"\s*(?:\\cdot|\*|-)\s*|\s+")
ASIDE = re.compile(
    r"\s*\b(?:in total|in all|total|altogether|each|apiece|old|long|wide|tall|high|deep|away|apart"
    r"|ago|left|remaining)$"
)


def _units() -> dict[str, str]:
    """Every name of a unit, with the one that stands for it."""
    names = {}
    for name, symbol in PREFIXED.items():
        for prefix, letter in [("", ""), *PREFIXES.items()]:
            for spelling in (letter + symbol, prefix + name, f"{prefix}{name}s"):
                names.setdefault(spelling, letter + symbol)
    for line in NAMED.splitlines():
        for spelling in line.split():
            names[spelling] = line.split()[0]
    names = {spelling: unit for spelling, unit in names.items() if len(spelling) > 1}
    # In other capitals, where no other unit is written so: `Km`, `HRS`.
    return {spelling.lower(): unit for spelling, unit in names.items()} | names


UNITS = _units()
LETTERS = {symbol: name for name, symbol in PREFIXED.items() if len(symbol) == 1} | {"h": "hour"}


def spell_letters(words: str) -> str:
    """Words whose units of one letter have their names: outside of words letters are variables."""
    words = NOON.sub(r"\1m", words)
    return re.sub(r"\b[A-Za-z]\b", lambda match: LETTERS.get(match[0], match[0]), words)


def unit_of(phrase: str) -> str | None:
    """The unit that a phrase names, whatever its power: `cm`, or of a quotient `mile/hour`.

    None for a noun, a product of units, and a quotient that holds one of them.
    """
    # A unit by which a phrase divides twice is a power.
    names = dict.fromkeys(_unit(SQUARE.sub("", part)) for part in PER.split(_plain(phrase)))
    known = [name for name in names if name is not None]
    return "/".join(known) if len(known) == len(names) else None


def currency_of(text: str) -> str | None:
    """The unit that a text's currency signs, and codes before a number, name; None for several."""
    found = {CURRENCIES[name] for name in CURRENCY_SIGN.findall(text) + CURRENCY_CODE.findall(text)}
    found.discard(None)
    return found.pop() if len(found) == 1 else None


def differ(unit: str | None, other: str | None) -> bool:
    """Whether two units are known and not the same. A quotient may be a single one: J/s is W."""
    if unit is None or other is None or ("/" in unit) != ("/" in other):
        return False
    return unit != other


def is_unit(phrase: str, *, one: bool = False, measured: bool = False) -> bool:
    """Whether a phrase names only a unit or a noun.

    Args:
        phrase: the words, with powers and slashes.
        one: whether the number beside it is one, which takes a noun in the singular.
        measured: whether nouns do not count.
    """
    if len(phrase) > LONGEST_PHRASE:
        return False
    first, *others = PER.split(_plain(phrase))
    if measured:
        return all(_is_measure(part) for part in (first, *others))
    return (_is_measure(first) or _is_noun(first, one)) and all(
        _is_measure(other) or _is_noun(other, one=True) for other in others
    )


def _plain(phrase: str) -> str:
    """A phrase without powers, punctuation, and what it says beside the unit."""
    phrase = re.sub(r"^\((.*)\)$", r"\1", NOON.sub(r"\1m", phrase).strip(" ,;:"))
    phrase = re.sub(r"(?<=[^\W\d_])\.", "", phrase)
    bare = SQUARE.sub("", POWER.sub("", phrase)).strip()
    return ASIDE.sub("", bare).strip() or bare


def _unit(word: str) -> str | None:
    return UNITS.get(word) or UNITS.get(word.lower())


def _is_measure(text: str) -> bool:
    return all(_unit(SQUARE.sub("", word)) for word in TIMES.split(text.strip()))


def _is_noun(text: str, one: bool) -> bool:
    head, *rest = re.split(r"\s+of\s+", text.strip().lower())
    words = head.split()
    others = [word for part in rest for word in part.split()]
    if not words or not all(_is_content(word) for word in [*words, *others]):
        return False
    last = words[-1].rpartition("-")[2]
    plural = len(last) > 3 and last.endswith("s") and not last.endswith("ss")
    return one or plural or last in PLURALS or last in UNITS


def _is_content(word: str) -> bool:
    parts = word.replace("'", "").split("-")
    return all(
        re.fullmatch(r"[^\W\d_]{2,}", part) is not None
        and part not in FUNCTION_WORDS
        and PART.fullmatch(part) is None
        for part in parts
    )
