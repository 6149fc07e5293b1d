import pytest

from oprd.evaluation.stated import holds_answer


@pytest.mark.parametrize(
    "text",
    [r"So \boxed{4}.", "<answer>4</answer>", "The answer is 4.", "<think>no</think> \\boxed{1}"],
)
def test_an_answer_in_any_form_is_held(text):
    assert holds_answer(text)


@pytest.mark.parametrize(
    "text",
    ["", "four", r"\boxed{", "<answer>4", "The answer is", r"<think>\boxed{4}", r"\boxed{ }"],
)
def test_what_is_cut_empty_or_thought_is_no_answer(text):
    assert not holds_answer(text)
