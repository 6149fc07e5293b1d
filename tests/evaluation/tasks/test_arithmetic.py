import pytest

from oprd.evaluation.tasks import arithmetic
from oprd.evaluation.tasks.arithmetic import Problem, problems


def test_solutions_state_every_partial_sum_and_the_answer():
    problem = Problem((47, 86, -29))
    assert problem.prompt == "What is 47 + 86 - 29?\n"
    assert problem.solution == "47 + 86 = 133. 133 - 29 = 104. The answer is 104."
    assert problem.answer == "104"


def test_problems_have_two_or_three_terms_of_two_digits_and_no_negative_partial_sum():
    for problem in problems("train", 300, seed=0):
        assert len(problem.terms) in (2, 3)
        assert all(10 <= abs(term) <= 99 for term in problem.terms)
        sums = [sum(problem.terms[: n + 1]) for n in range(len(problem.terms))]
        assert min(sums) >= 0
    assert {len(p.terms) for p in problems("train", 50, seed=0)} == {2, 3}


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1), (5, 2)])
def test_the_splits_share_no_problem_whatever_the_seeds(seeds):
    train, test = problems("train", 2000, seeds[0]), problems("test", 500, seeds[1])
    assert not {p.prompt for p in train} & {p.prompt for p in test}


def test_problems_are_different_and_the_same_for_the_same_seed():
    drawn = problems("test", 400, seed=3)
    assert len(set(drawn)) == 400
    assert drawn == problems("test", 400, seed=3)
    assert drawn != problems("test", 400, seed=4)


def test_additions_can_be_asked_for_alone():
    assert all(min(p.terms) > 0 for p in problems("test", 200, seed=0, subtraction=False))
    assert any(min(p.terms) < 0 for p in problems("test", 200, seed=0))
    assert arithmetic.load(count=2, subtraction=False).name == "additions"


@pytest.mark.parametrize(("split", "count"), [("dev", 1), ("train", -1), ("train", 10**9)])
def test_a_split_or_a_count_that_does_not_exist_is_refused(split, count):
    with pytest.raises(ValueError, match=r"split must be|count must be from 0 to 100,000"):
        problems(split, count, seed=0)


@pytest.mark.parametrize(
    ("text", "gold", "correct"),
    [
        ("47 + 86 = 133. The answer is 133.", "133", True),
        ("The answer is 7. The answer is 133.", "133", True),
        ("The answer is 0133.", "133", True),
        ("47 + 86 = 133.", "133", False),
        ("The answer is 13", "13", False),
        ("", "13", False),
    ],
)
def test_the_last_stated_answer_counts(text, gold, correct):
    assert arithmetic.grade(text, gold).correct is correct
