import pytest

from lab import sorting, sums


@pytest.mark.parametrize("task", [sums, sorting])
def test_training_and_held_out_problems_are_disjoint(task):
    trained = {prompt for prompt, _ in task.examples("train", 3000, seed=5)}
    held_out = {prompt for prompt, _ in task.examples("test", 300, seed=0)}
    assert len(trained) == 3000
    assert not trained & held_out


@pytest.mark.parametrize("task", [sums, sorting])
def test_a_solution_is_graded_right_and_a_changed_one_wrong(task):
    for (_, solution), row in zip(task.examples("test", 250, 0), task.prompts(), strict=True):
        assert task.grade(solution, row["answer"]).correct
        other = chr(ord(solution[-1]) ^ 1)
        assert not task.grade(solution[:-1] + other, row["answer"]).correct


@pytest.mark.parametrize("task", [sums, sorting])
def test_solutions_fit_into_the_response_with_their_end(task):
    longest = max(len(solution) for _, solution in task.examples("train", 2000, seed=1))
    assert longest + 1 <= task.LONGEST_RESPONSE


@pytest.mark.parametrize("task", [sums, sorting])
def test_all_characters_are_in_the_alphabet(task):
    text = "".join(map("".join, task.examples("train", 500, seed=1)))
    assert set(text) <= set(task.ALPHABET)


def test_a_worked_sum_adds_one_term_at_a_time():
    prompt, solution = next(e for e in sums.examples("train", 50, 1) if e[0].count("+") == 2)
    a, b, c = map(int, prompt.rstrip("=").split("+"))
    assert solution == f"{a}+{b}={a + b};{a + b}+{c}={a + b + c}"
