import logging

import pytest
from accelerate import PartialState
from datasets import Dataset

from oprd.log import get_logger
from oprd.prompts.form import check_form
from oprd.prompts.load import load_prompts
from tests import tiny
from tests.evaluation.samples import chat_tokenizer

CHAT = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
MESSAGES = [{"role": "user", "content": "What is 2 + 2?"}]


@pytest.fixture(autouse=True)
def anew():
    """What is said once is said once a test."""
    PartialState()
    get_logger("oprd.prompts.form").warning_once.cache_clear()


def warned(caplog, prompts, tokenizer) -> bool:
    with caplog.at_level(logging.WARNING):
        check_form(prompts, tokenizer)
    return "a chat template, which they do not go through" in caplog.text


def dataset(*prompts):
    return Dataset.from_dict({"prompt": list(prompts)})


def test_plain_text_for_a_chat_model_is_warned_of_with_the_way_out(caplog):
    assert warned(caplog, dataset("What is 2 + 2?"), chat_tokenizer(CHAT))
    assert 'Give messages, [{"role": "user", "content": …}]' in caplog.text


@pytest.mark.parametrize(
    ("prompts", "template"),
    [
        (dataset(MESSAGES), CHAT),
        (dataset("What is 2 + 2?"), None),
        (load_prompts("additions", max_prompts=2), CHAT),
        (dataset(), CHAT),
        (dataset("What is 2 + 2?").to_iterable_dataset(), CHAT),
        (None, CHAT),
    ],
)
def test_what_is_as_it_must_be_or_cannot_be_seen_is_not_warned_of(caplog, prompts, template):
    tokenizer = tiny.tokenizer() if template is None else chat_tokenizer(template)
    assert not warned(caplog, prompts, tokenizer)


def test_messages_for_a_tokenizer_without_a_template_are_refused_with_the_way_out():
    with pytest.raises(ValueError, match=r"no chat template, as is usual for a base model: give"):
        check_form(dataset(MESSAGES), tiny.tokenizer())
