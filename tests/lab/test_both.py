"""Sums and sorting in one task, and what is told of each."""

from lab import both, sorting, sums
from lab.items.merging import by_task
from lab.models import make_tokenizer
from tests.evaluation.samples import evaluation


def test_a_prompt_tells_which_task_it_is_of_and_both_come_in_turn():
    examples = both.examples("train", 7, seed=3)
    assert [both.task_of(prompt) for prompt, _ in examples] == ["sums", "sorting"] * 3 + ["sums"]
    assert examples[0::2] == sums.examples("train", 4, seed=3)


def test_every_text_of_both_is_read_with_one_alphabet():
    tokenizer = make_tokenizer(both.ALPHABET)
    for prompt, solution in both.examples("test", 20, seed=0):
        assert tokenizer.decode(tokenizer(prompt + solution)["input_ids"]) == prompt + solution


def test_held_out_problems_are_graded_by_their_own_task():
    problems = both.prompts()
    assert problems == [*sums.prompts(), *sorting.prompts()]
    assert both.grade("12+30=42", "42").correct and not both.grade("12+30=43", "42").correct
    assert both.grade("abc", "abc").correct and not both.grade("acb", "abc").correct


def test_accuracy_by_task_is_of_the_problems_of_each_as_an_evaluation_reports_them():
    asked = enumerate(both.prompts())
    solved = {str(n): [both.task_of(problem["prompt"]) == "sums"] for n, problem in asked}
    assert by_task(evaluation(solved).averages()) == {"sums": 1.0, "sorting": 0.0}
