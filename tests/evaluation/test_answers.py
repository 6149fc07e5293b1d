import pytest

from oprd.evaluation.answers import comparable, qualifiers


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (r"\text{less than } \frac12", ["less", "than"]),
        (r"\frac12 \text{ or more}", ["more"]),
        (r"4, 5 \text{ and not } 6", ["not"]),
        (r"\mathrm{not}\, x", ["not"]),
        (r"5 \text{ cm and } 6 \text{ cm}", []),
        (r"\text{Area} = 12\pi", []),
        (r"x = 1 \text{ or } x = 2", []),
        (r"\max(a, b) + \operatorname{lcm}(c, d) + by", []),
    ],
)
def test_words_that_are_neither_units_nor_names_qualify_a_formula(answer, words):
    assert qualifiers(answer) == words


@pytest.mark.parametrize(
    "answers",
    [
        ("73", "**73**", "７３", r"\textcolor{red}{73}", r"73 \text{ cm}", "73.0"),
        (r"\frac{1}{2}", "½", r"\displaystyle \frac{1}{2}", r"\$\frac{1}{2}"),
        ("east", r"\text{East}", "**east**"),
    ],
)
def test_answers_that_differ_in_their_typography_vote_for_one(answers):
    assert len({comparable(answer) for answer in answers}) == 1


def test_words_that_count_do_not_vote_for_the_number():
    assert comparable(r"4 \text{ or more}") != comparable("4")
