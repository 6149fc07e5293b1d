"""What of math-verify, and of the parser below it, the grader leans on or works around."""

import inspect
from typing import Any

import pytest
from latex2sympy2_extended.logic import And
from latex2sympy2_extended.sets import FiniteSet
from math_verify import LatexExtractionConfig, grader, parse, verify
from sympy import Eq, Float, Integer, Interval, Rational, Symbol, Tuple


def read(formula: str) -> Any:
    found = parse(
        rf"\boxed{{{formula}}}",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]
        raise_on_error=True,
    )
    return found[0] if found else None


def equal(gold: str, answer: str) -> bool:
    return verify(read(gold), read(answer), timeout_seconds=None, raise_on_error=True)


def test_verify_takes_the_gold_answer_first_and_leaves_the_clock_to_us():
    assert list(inspect.signature(verify).parameters)[:2] == ["gold", "target"]
    assert {"timeout_seconds", "raise_on_error"} < set(inspect.signature(verify).parameters)
    assert equal("4 < x < 5", "(4,5)")
    assert not equal("(4,5)", "4 < x < 5")


@pytest.mark.parametrize("formula", ["?", r"\approx 4", r"\geq 4", "4+", "√2", r"{\color{red}7}"])
def test_what_does_not_parse_is_an_empty_list(formula):
    assert read(formula) is None


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("0.5", "0.25"), (r"\{1,2\}", r"\{1,3\}"), ("[1,2]", "[1,3]"), (r"\sqrt2", r"\sqrt3")],
)
def test_numbers_are_compared_by_a_function_that_can_be_replaced(monkeypatch, gold, answer):
    compared = []
    monkeypatch.setattr(grader, "sympy_numeric_eq", lambda *pair: compared.append(pair) or True)
    assert equal(gold, answer)
    # Its arguments: the two numbers, gold first, and two tolerances.
    assert compared and {len(arguments) for arguments in compared} == {4}


@pytest.mark.parametrize(
    ("gold", "answer"),
    [("0.0000001", "0.0000002"), (r"9 \times 10^{-31}", r"6 \times 10^{-34}"), ("1/50!", "2/50!")],
)
def test_left_alone_it_rounds_and_takes_tiny_numbers_for_zero(gold, answer):
    assert equal(gold, answer)


@pytest.mark.parametrize("digits", ["0.0000002", "6.63", "12345678901234567890.123456789012345678"])
def test_a_decimal_keeps_its_digits(digits):
    number = read(digits)
    assert isinstance(number, Float)
    assert Rational(str(number)) == Rational(digits)


def test_powers_and_factorials_are_not_computed_when_they_are_read():
    assert read("9^{9^{9^{9}}}").is_Pow
    assert not read("(10^{10})!").is_Integer


def test_a_percentage_is_a_product_that_remembers_its_sign():
    number, hundredth = read(r"50\%").args
    assert number == 50
    assert hundredth.doit() == Rational(1, 100)


def test_lists_and_chains_remember_the_order_in_which_they_were_written():
    listed, chain = read("3, 0.5, 1"), read("4 < x < 5")
    assert (type(listed), type(chain)) == (FiniteSet, And)
    assert listed._unsorted_args == [3, Float("0.5"), 1]
    assert [relation.lhs for relation in chain._unsorted_args] == [4, Symbol("x", real=True)]


def test_parentheses_around_two_numbers_are_an_open_interval():
    assert read("(1,2)") == Interval.open(1, 2)
    assert read("(2,1)") == Tuple(2, 1)
    assert read("1,2") == FiniteSet(1, 2)
    assert isinstance(read(r"x \in (1,2)"), Eq)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("4 < x < 5", r"\{4,5\}"),
        (r"x \in (4,5)", "4,5"),
        (r"\{4,5\}", "(4,5)"),
        ("|x| < 5", r"\pm 5"),
    ],
)
def test_left_alone_it_takes_intervals_pairs_and_sets_for_one_another(gold, answer):
    assert equal(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        (r"\frac12", r"\frac12 \text{ dozen}"),
        (r"\sqrt{2}", r"\sqrt{2} \text{ or more}"),
        ("x", "x'"),
        ("4", r"4 \ldots"),
    ],
)
def test_words_at_the_end_primes_and_ellipses_are_left_out(gold, answer):
    assert equal(gold, answer)


def test_left_alone_it_takes_a_sum_for_a_name():
    assert equal("x + y = 5", "5")


def test_words_are_products_of_letters():
    assert equal("east", "seat")


@pytest.mark.parametrize(("formula", "sum_of_both"), [("7 3", 10), ("2(3)", 5)])
def test_a_number_beside_a_whole_number_is_added(formula, sum_of_both):
    assert read(formula) == sum_of_both


def test_a_mixed_number_is_one_number():
    assert read(r"1\frac{4}{5}") == Rational(9, 5)


def test_and_and_or_part_a_list():
    assert read(r"5 \text{ or } 6") == read(r"5 \text{ and } 6") == FiniteSet(5, 6)


def test_letters_are_no_exponents_of_ten():
    assert read("1e-7") != Rational(1, 10**7)
    assert read(r"1 \cdot 10^{-7}").doit() == Rational(1, 10**7)


def test_one_number_in_braces_is_a_set():
    assert read("{7}") == FiniteSet(Integer(7))
