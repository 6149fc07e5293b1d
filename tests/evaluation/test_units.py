import pytest

from oprd.evaluation.units import currency_of, differ, is_unit, spell_letters, unit_of


@pytest.mark.parametrize(
    "phrase",
    [
        *("cm", "Km", "sq. ft.", "square units", "cm^2", "cm2", "meters squared", "p.m.", "USD"),
        *("miles per hour", "kg m/s^2", r"N\cdot m", "dollars a day", "cents per apple", "(cm)"),
        *("apples", "red apples", "distinct real solutions", "people", "cups of flour"),
        *("years old", "students in total", "dollars each", "light-years"),
    ],
)
def test_units_and_nouns_in_the_plural_only_say_what_was_counted(phrase):
    assert is_unit(spell_letters(phrase))


@pytest.mark.parametrize(
    "phrase",
    [
        *("not", "or more", "and a half", "at most", "to", "is wrong", "wrong", "or apples"),
        *("dozen", "halves", "thirds", "hundredths", "squared", "less", "fewer apples", "th"),
        *("of them", "more than", "plus", "x", "", "5", "pi units"),
    ],
)
def test_words_that_change_a_number_are_no_unit(phrase):
    assert not is_unit(phrase)


def test_a_noun_in_the_singular_counts_one():
    assert is_unit("apple", one=True)
    assert not is_unit("apple")


def test_where_nouns_do_not_count_units_do():
    assert is_unit(spell_letters("m/s"), measured=True)
    assert not is_unit("apples", measured=True)


def test_a_unit_has_one_name():
    assert unit_of("centimetres") == unit_of("cm^2") == unit_of("Centimeter") == "cm"
    assert unit_of("Mm") != unit_of("mm")
    assert unit_of("apples") is unit_of("kg m") is None


def test_a_quotient_is_named_by_its_parts():
    assert unit_of("miles per hour") == unit_of("mi/hr") == unit_of("mph") == "mile/hour"
    assert unit_of(spell_letters("m/s/s")) == unit_of(spell_letters("m/s^2")) == "m/s"
    assert unit_of("kg per square meter") == "kg/m"
    assert unit_of("apples per day") is unit_of(spell_letters("kg m/s")) is None


@pytest.mark.parametrize(
    ("unit", "other", "different"),
    [
        ("m", "cm", True),
        ("km/hour", "m/s", True),
        ("m", "m", False),
        ("m", None, False),
        (None, None, False),
        ("J/s", "W", False),
    ],
)
def test_units_differ_where_both_are_known_and_alike_in_kind(unit, other, different):
    assert differ(unit, other) is differ(other, unit) is different


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        (r"\textdollar 5", "dollar"),
        ("US 5", "dollar"),
        ("€5", "euro"),
        ("5¢", "cent"),
        ("¥5", None),
        ("CNY 5", "yuan"),
        ("€5, £5", None),
        ("5", None),
    ],
)
def test_a_currency_is_known_by_its_sign_or_code(text, unit):
    assert currency_of(text) == unit
