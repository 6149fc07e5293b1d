import pytest

from lab import additions, chains, sorting, sums, words
from lab.scores import PARTS, samples

TASKS = [additions, sums, chains, sorting, words]


@pytest.mark.parametrize("task", TASKS)
def test_training_and_held_out_problems_are_disjoint(task):
    trained = {prompt for prompt, _ in task.examples("train", 3000, seed=5)}
    held_out = {prompt for prompt, _ in task.examples("test", 300, seed=0)}
    assert len(trained) == 3000
    assert not trained & held_out


@pytest.mark.parametrize("task", TASKS)
def test_a_solution_is_graded_right_and_a_changed_one_wrong(task):
    rows = task.prompts()
    for (prompt, solution), row in zip(task.examples("test", len(rows), 0), rows, strict=True):
        assert prompt == row["prompt"]
        assert task.grade(solution, row["answer"]).correct
        last = max(place for place, character in enumerate(solution) if character.isalnum())
        other = chr(ord(solution[last]) ^ 1)
        changed = solution[:last] + other + solution[last + 1 :]
        assert not task.grade(changed, row["answer"]).correct


@pytest.mark.parametrize("task", TASKS)
def test_a_task_says_how_often_each_problem_is_answered(task):
    assert set(samples(task.__name__)) == {*PARTS, "curve"}


@pytest.mark.parametrize("task", [sums, chains, sorting])
def test_solutions_fit_into_the_response_with_their_end(task):
    longest = max(len(solution) for _, solution in task.examples("train", 2000, seed=1))
    assert longest + 1 <= task.LONGEST_RESPONSE


@pytest.mark.parametrize("task", [sums, chains, sorting, words])
def test_all_characters_are_in_the_alphabet(task):
    text = "".join(map("".join, task.examples("train", 500, seed=1)))
    assert set(text) <= set(task.ALPHABET)


def test_a_worked_sum_adds_one_term_at_a_time():
    prompt, solution = next(e for e in sums.examples("train", 50, 1) if e[0].count("+") == 2)
    a, b, c = map(int, prompt.rstrip("=").split("+"))
    assert solution == f"{a}+{b}={a + b};{a + b}+{c}={a + b + c}"


def test_a_chain_is_worked_as_a_sum_is_and_fits_into_the_models_context():
    examples = chains.examples("train", 2000, seed=1)
    assert {chains.terms(prompt) for prompt, _ in examples} == set(chains.TERMS)
    assert max(len(prompt + solution) for prompt, solution in examples) + 1 <= chains.CONTEXT
    for prompt, solution in examples[:50]:
        numbers = tuple(map(int, prompt.rstrip("=").split("+")))
        assert solution == sums.solution(numbers)
        assert solution.endswith(f"={sum(numbers)}")


def test_different_words_are_asked_for_in_order():
    prompt, solution = words.examples("train", 1, 0)[0]
    assert solution.split() == sorted(prompt.split()[:-1])
    assert len(words.lexicon()) == len(set(words.lexicon())) == words.LEXICON
