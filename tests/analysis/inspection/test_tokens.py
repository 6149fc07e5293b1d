import pytest

from oprd.analysis.inspection.tokens import compare_tokenizers, first_difference, stop_tokens
from tests import tiny

TEMPLATE = "{{ messages[0].content }}{{ '?' if asking else '!' }}"


def tokenizer(template: str | None = None, more: tuple[str, ...] = ()):
    made = tiny.tokenizer().__class__(
        tokenizer_object=tiny.tokenizer().backend_tokenizer, eos_token="<eos>", pad_token="<pad>"
    )
    made.chat_template = template
    if more:
        made.add_tokens(list(more))
    return made


CHAT = [{"role": "user", "content": "add"}]


def test_tokenizers_of_one_kind_differ_in_nothing():
    found = compare_tokenizers(tokenizer(TEMPLATE), tokenizer(TEMPLATE), CHAT, {"asking": True})
    assert found["vocabulary"] == {
        "student": tiny.VOCAB,
        "teacher": tiny.VOCAB,
        "different": 0,
        "first_difference": None,
    }
    assert found["prompt"]["student"] == {"text": "add?", "tokens": 4}
    assert found["prompt"]["first_difference"] is None
    assert found["template"]["first_difference"] is None


def test_the_first_id_of_another_meaning_is_shown():
    found = compare_tokenizers(tokenizer(more=("<a>", "<b>")), tokenizer(more=("<b>",)), "x", {})
    assert found["vocabulary"]["different"] == 2
    assert found["vocabulary"]["first_difference"] == [tiny.VOCAB, "<a>", "<b>"]


def test_another_template_shows_in_the_template_and_in_the_prompt():
    other = TEMPLATE.replace("'!'", "'.'")
    found = compare_tokenizers(tokenizer(TEMPLATE), tokenizer(other), CHAT, {})
    assert found["prompt"]["first_difference"] == {"at": 3, "student": "add!", "teacher": "add."}
    assert found["template"]["first_difference"]["at"] == TEMPLATE.index("'!'") + 1


def test_a_prompt_that_one_template_refuses_says_so():
    refusing = "{{ raise_exception('no users here') }}"
    found = compare_tokenizers(tokenizer(TEMPLATE), tokenizer(refusing), CHAT, {})
    assert "no users here" in found["prompt"]["teacher"]["problem"]
    assert found["prompt"]["first_difference"] == {"at": 0, "student": "add!", "teacher": ""}


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("abc", "abc", None),
        (None, None, None),
        ("abc", "abd", {"at": 2, "student": "abc", "teacher": "abd"}),
        ("ab", "abc", {"at": 2, "student": "ab", "teacher": "abc"}),
        ("ab", None, {"at": 0, "student": "ab", "teacher": ""}),
        ("x" * 100 + "a", "x" * 100 + "b" * 50,
         {"at": 100, "student": "x" * 24 + "a", "teacher": "x" * 24 + "b" * 24}),
    ],
)  # fmt: skip
def test_texts_part_at_their_first_difference(first, second, expected):
    assert first_difference(first, second) == expected


def test_stop_tokens_are_the_tokenizers_and_those_of_the_model():
    model = tiny.model()
    assert model.generation_config is not None
    model.generation_config.eos_token_id = [tiny.EOS, 259]
    assert stop_tokens(model, tiny.tokenizer()) == ["<eos>", "<user>"]
