"""Rollouts as an object: built here without TRL's trainer."""

import logging

import pytest
import torch
from datasets import Dataset

from oprd.rollouts.supervised import Rollouts, check_source
from tests.training.runs import settings

END = 257


def made(tmp_path, contexts=None, vocabularies=(260, 260), **options) -> Rollouts:
    args = settings(tmp_path, **options)
    return Rollouts(args, vocabularies, contexts or {}, (END,), args.max_completion_length)


def generated():
    """Two prompts of one token and responses of three and of none, as TRL pads them."""
    return {
        "prompt_mask": torch.ones(2, 1, dtype=torch.long),
        "completion_ids": torch.tensor([[5, 6, END], [END, 0, 0]]),
        "completion_mask": torch.tensor([[1, 1, 1], [1, 0, 0]]),
    }


def test_an_empty_completion_is_given_an_end_token_that_is_never_supervised(tmp_path):
    rollouts = made(tmp_path, positions="all")
    completions = [[5, 6, END], []]
    rollouts.receive([[1], [2]], completions)
    assert completions[1] == [END]
    output = generated()
    metrics = rollouts.supervise(output, lambda counts: counts)
    assert output["positions"].tolist() == [[True] * 3, [False] * 3]
    assert output["supervised_count"] == output["response_count"] == 1
    assert metrics == {
        "completions/empty_ratio": 0.5,
        "completions/unsupervised_ratio": 0.5,
        "completions/stopped_ratio": 0.5,
        "completions/cut_ratio": 0.0,
    }
    assert rollouts.tokens == 5


def test_counts_are_those_of_all_processes(tmp_path):
    rollouts = made(tmp_path, reduction="token")
    output = generated()
    metrics = rollouts.supervise(output, lambda counts: 2 * counts)
    assert output["supervised_count"] == 8
    assert metrics["completions/empty_ratio"] == 0


def test_another_way_to_select_takes_the_place_of_the_settings(tmp_path):
    rollouts = made(tmp_path)

    def nothing(output, args):
        output["positions"] = torch.zeros_like(output["completion_mask"]).bool()

    rollouts.select = nothing
    output = generated()
    logging.disable(logging.WARNING)
    try:
        metrics = rollouts.supervise(output, lambda counts: counts)
    finally:
        logging.disable(logging.NOTSET)
    assert metrics["completions/unsupervised_ratio"] == 1


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_number_of_completions_that_was_not_asked_for_is_refused_with_both(tmp_path, count):
    with pytest.raises(RuntimeError, match=rf"2 rollouts were asked for and {count} came back"):
        made(tmp_path).receive([[1], [2]], [[5]] * count)


def test_a_completion_longer_than_was_asked_for_is_refused_with_both_lengths(tmp_path):
    rollouts = made(tmp_path)
    rollouts.receive([[1], [2]], [[5] * 12, [5]])
    with pytest.raises(RuntimeError, match="at most 12 tokens were asked for, and one of 13 came"):
        rollouts.receive([[1], [2]], [[5], [5] * 13])


def test_a_token_beyond_the_teachers_embedding_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sampled token 257, and the teacher's embedding has 256"):
        made(tmp_path, vocabularies=(260, 256)).supervise(generated(), lambda counts: counts)


def test_a_prompt_that_leaves_no_room_is_refused_or_dropped(tmp_path):
    prompts = Dataset.from_dict({"prompt": ["short", "a long one"]})
    contexts = {"student": 20, "teacher": 18}

    def tokenize(batch):
        return [list(prompt.encode()) for prompt in batch]

    with pytest.raises(ValueError, match=r"training prompt 1 has 10 tokens.*the student reads 20"):
        made(tmp_path, contexts).fitting(prompts, "training", tokenize)
    kept = made(tmp_path, contexts, long_prompts="drop").fitting(prompts, "training", tokenize)
    assert kept["prompt"] == ["short"]
    with pytest.raises(ValueError, match="the prompt 'a long one' has 10 tokens"):
        made(tmp_path, contexts).check_streamed(["a long one"], [list(b"a long one")])


def test_a_stream_has_no_order_of_its_own_and_takes_no_seed_of_it(tmp_path):
    rows = Dataset.from_dict({"prompt": ["a", "b"]})
    args = settings(tmp_path, data_seed=7)
    check_source(rows, args)
    with pytest.raises(ValueError, match="data_seed=7 needs a dataset with a length"):
        check_source(rows.to_iterable_dataset(), args)
    check_source(rows.to_iterable_dataset(), settings(tmp_path, seed=7))
