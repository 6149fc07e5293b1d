import pytest
import torch

from oprd.models.token_bytes import TokenBytes
from oprd.prompts.show import SHOWN, first_rollout, marked_tokens
from tests import tiny
from tests.models.built_tokenizers import byte_level, characters, sentencepiece, unigram

HOSTILE = {
    "a colour": "\x1b[31mred\x1b[0m",
    "a title": "\x1b]0;title\x07",
    "a return": "cost\rlost",
    "a line": "one\ntwo\x0bthree\x85four\u2028five",
    "a nul": "a\0b",
    "the other direction": "\u202egnp.exe",
    "eight bits": "\x9b31m",
}


def shown(prompt: str, response: str, supervised: list[bool]) -> list[str]:
    """What is shown of a rollout, padded on both sides, with another below."""
    encode = lambda text: tiny.tokenizer()(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    left, right = encode(prompt), encode(response)
    batch = {
        "prompt_ids": torch.tensor([[tiny.PAD] * 2 + left, [65] * (len(left) + 2)]),
        "prompt_mask": torch.tensor([[0] * 2 + [1] * len(left), [1] * (len(left) + 2)]),
        "completion_ids": torch.tensor([[*right, tiny.PAD], [65] * (len(right) + 1)]),
        "completion_mask": torch.tensor([[1] * len(right) + [0], [1] * (len(right) + 1)]),
    }
    return first_rollout(tiny.tokenizer(), batch, torch.tensor([*supervised, False])).split("\n")


def test_the_supervised_part_stands_between_brackets():
    prompt, response = shown("ab?", "cdef", [False, True, True, False])
    assert prompt == "First prompt as the student reads it, 3 tokens: ab?"
    assert response.startswith("Its response, 4 tokens, of which the 2 between ⟦ and ⟧ ")
    assert response.endswith(": c⟦de⟧f")


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_prompt_and_no_response_steers_the_terminal(text: str):
    marks = [True] * len(text.encode())
    lines = shown(f"<{text}>", text, marks)
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "\\" in lines[0] and "\\" in lines[1]


def test_markup_is_shown_as_it_is_written():
    prompt, _ = shown("[bold]a[/bold] {b} %s", "c", [True])
    assert prompt.endswith(": [bold]a[/bold] {b} %s")


def test_a_long_prompt_is_shown_by_its_ends():
    prompt, _ = shown("a" * 5000 + "end?", "c", [True])
    assert "5004 tokens" in prompt and " … " in prompt and prompt.endswith("end?")
    assert len(prompt) < SHOWN + 100


@pytest.mark.parametrize("kind", [sentencepiece, byte_level, unigram, characters])
def test_tokens_shown_one_by_one_are_the_text_with_its_spaces(kind):
    reads_with = kind()
    text = "the cat  sat on it"
    ids = TokenBytes(reads_with).encode(text.encode())
    shown = marked_tokens(reads_with, ids, [True] * len(ids))
    assert shown.strip("⟦⟧").replace("|", "") == text
    assert shown.count("|") == len(ids) - 1
