import pytest

from oprd.evaluation.units import is_unit, spell_letters, unit_of


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
    assert unit_of("apples") is unit_of("miles per hour") is None
