from decimal import Decimal

import pytest

from oprd.evaluation.quantities import parse_number, parse_unit, plain_quantity


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("1,234.50", "1234.5"),
        (r"5 \text{ million dollars}", "5000000"),
        ("4 dozen eggs", "48"),
        ("6.63e-34", "6.63e-34"),
        (r"\text{The answer is } 5", "5"),
        ("USD 5", "5"),
        ("€5", "5"),
        (r"5\,\frac{\text{m}}{\text{s}}", "5"),
        (r"5\,\mathrm{kg\cdot m/s^2}", "5"),
        ("123456789012345678901234567890 million", "123456789012345678901234567890e6"),
    ],
)
def test_a_number_is_read_without_what_was_counted(answer, number):
    assert parse_number(answer) == Decimal(number)


@pytest.mark.parametrize(
    "answer",
    [
        *("~4", "4 or more", "not 4", "4...", "4x", "4m", "1e99999", r"4 \text{ k}", "4:30", ""),
        *("5^2", "2mn", "6rs", "4MV", "3mg", "1 xy", "5 x", "2 h r"),
    ],
)
def test_what_says_more_is_no_number(answer):
    assert parse_number(answer) is None


@pytest.mark.parametrize(
    ("answer", "unit"),
    [
        (r"5 \text{ cents}", "cent"),
        (r"\sqrt{2} \text{ m}", "m"),
        ("3/4 miles", "mile"),
        (r"15\mbox{ cm}^2", "cm"),
        ("5 apples", None),
        ("5", None),
        (r"5 \text{ mN}", "mN"),
        ("5 km", "km"),
        ("5mn", None),
        ("5 m/s", "m/s"),
        ("5 Kg", "kg"),
        (r"\frac12 mv^2", None),
        (r"\textdollar 5", "dollar"),
        (r"\textdollar 5 \text{ cents}", "cent"),
        (r"\frac{€5}{2}", "euro"),
    ],
)
def test_a_unit_is_read_behind_numbers_and_formulas(answer, unit):
    assert parse_unit(answer) == unit


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (r"x = 5 \text{ cm}", "x = 5"),
        (r"5 \text{ cm and } 6 \text{ cm}", r"5 \text{ and } 6"),
        ("2(3)", r"2 \cdot (3)"),
        ("x + 1.5e-7", r"x + 1.5 \cdot 10^{-7}"),
        ("137 1/2", r"137\frac{1}{2}"),
        (r"\frac{a}{b}/\mathrm{c}", r"\frac{a}{b}/ c"),
        (r"\frac12 \text{ or more}", r"\frac12 \text{ or more}"),
        (r"\frac12 mv^2", r"\frac12 mv^2"),
        (r"\frac12 cm^2", r"\frac12"),
        (r"2\binom{5}{2}", r"2 \cdot \binom{5}{2}"),
        (r"\textdollar\frac12", r"\frac12"),
        (r"0.1\overline{6}", r"\frac{1}{6}"),
        (r".\overline{27} + 1", r"\frac{3}{11} + 1"),
        (r"0.\overline{3}4", r"0.\overline{3}4"),
        (r"1,234.\overline{5}", r"1,234.\overline{5}"),
    ],
)
def test_a_formula_keeps_all_but_its_units(answer, plain):
    assert " ".join(plain_quantity(answer).split()) == plain
