import copy

import pytest
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from oprd.models.tokenizers import check_same_meaning
from tests import tiny


def changed(**swaps: str):
    """The tiny tokenizer with some tokens replaced."""
    import json

    state = json.loads(tiny.tokenizer().backend_tokenizer.to_str())
    vocab = state["model"]["vocab"]
    for old, new in swaps.items():
        vocab[new] = vocab.pop(old)
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(state)))


def test_the_same_tokenizer_is_accepted():
    check_same_meaning(tiny.tokenizer(), copy.deepcopy(tiny.tokenizer()), tiny.VOCAB)


def test_a_teacher_that_knows_more_tokens_is_accepted():
    larger = copy.deepcopy(tiny.tokenizer())
    larger.add_tokens(["<tool>", "<image>"])
    check_same_meaning(tiny.tokenizer(), larger, tiny.VOCAB + 2)


def test_a_padded_embedding_is_accepted():
    check_same_meaning(tiny.tokenizer(), tiny.tokenizer(), tiny.VOCAB + 100)


def test_another_tokenizer_of_the_same_size_is_refused_with_the_first_different_ids():
    other = changed(A="ab", B="ba")
    ids = sorted(tiny.tokenizer().get_vocab()[token] for token in "AB")
    assert other.vocab_size == tiny.tokenizer().vocab_size
    with pytest.raises(ValueError, match=rf"2 of the student's 260 .* {ids[0]} \('A' / 'ab'\)"):
        check_same_meaning(tiny.tokenizer(), other, tiny.VOCAB)


def test_a_student_that_knows_more_tokens_is_refused():
    larger = copy.deepcopy(tiny.tokenizer())
    larger.add_tokens(["<tool>"])
    with pytest.raises(ValueError, match=r"260 \('<tool>' / None\)"):
        check_same_meaning(larger, tiny.tokenizer(), tiny.VOCAB)


def test_an_embedding_without_room_for_the_students_ids_is_refused():
    with pytest.raises(ValueError, match="up to id 259, but the teacher's embedding has 200 rows"):
        check_same_meaning(tiny.tokenizer(), tiny.tokenizer(), 200)
