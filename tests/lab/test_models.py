"""How the lab trains its models."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from lab import models, words
from lab.models import Recipe, learn_tokenizer, make_tokenizer, obtain
from lab.threads import threads

TINY = Recipe("sums", layers=1, width=16, steps=3, batch=4, keep_every=1)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "CACHE", tmp_path)
    monkeypatch.setattr(models, "EXAMPLES", 16)


def kept(folder):
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def test_a_training_that_stops_early_has_the_weights_of_the_whole_at_that_step():
    whole, early = obtain(TINY), obtain(replace(TINY, until=2))
    assert kept(whole) == [f"checkpoint-{step}" for step in (1, 2, 3)]
    assert kept(early) == ["checkpoint-1", "checkpoint-2"]
    first, second = (load_file(f / "checkpoint-2" / "model.safetensors") for f in (whole, early))
    assert all(first[name].equal(second[name]) for name in first)


def test_a_recipe_whose_last_step_leaves_no_checkpoint_is_refused():
    with pytest.raises(ValueError, match="step 3 is the last, and no multiple of 2"):
        replace(TINY, keep_every=2)


def test_solutions_with_their_end_are_learned_and_prompts_are_not():
    tokenizer = make_tokenizer("12+=")
    (row,) = models._tokenized(tokenizer, [("1+1=", "2")])
    assert tokenizer.decode(row["input_ids"]) == "1+1=2#"
    assert [label for label in row["labels"] if label != -100] == row["input_ids"][-2:]
    assert row["labels"][:4] == [-100] * 4


def test_a_choice_that_is_not_made_leaves_no_trace_in_the_name_of_a_model():
    assert set(TINY.key) == {
        "task", "layers", "width", "steps", "batch", "learning_rate", "seed", "keep_every",
    }  # fmt: skip
    others = (replace(TINY, vocabulary=64), replace(TINY, untied=True))
    assert len({model.folder for model in (TINY, *others)}) == 3


def test_byte_pairs_are_those_of_the_task_whoever_learns_them(monkeypatch):
    monkeypatch.setattr(models, "EXAMPLES", 600)
    one, other = (learn_tokenizer(words, 300) for _ in range(2))
    assert one.get_vocab() == other.get_vocab() and len(one) == 300
    for prompt, solution in words.examples("test", 20, 0):
        tokens = one(prompt + solution)["input_ids"]
        assert one.decode(tokens) == prompt + solution
        assert len(one(solution)["input_ids"]) < len(solution)
    with pytest.raises(ValueError, match="100000 tokens were asked for"):
        learn_tokenizer(words, 100_000)


def test_a_model_of_byte_pairs_with_a_head_of_its_own(monkeypatch):
    monkeypatch.setattr(models, "EXAMPLES", 600)
    folder = obtain(replace(TINY, task="words", vocabulary=300, untied=True, steps=1))
    weights = load_file(folder / "checkpoint-1" / "model.safetensors")
    assert weights["lm_head.weight"].shape == (300, 16)
    assert not weights["lm_head.weight"].equal(weights["model.embed_tokens.weight"])


def test_models_are_trained_on_one_thread_whoever_asks(monkeypatch):
    used, train = [], models.Trainer.train
    monkeypatch.setattr(
        models.Trainer, "train", lambda self: used.append(torch.get_num_threads()) or train(self)
    )
    with threads(2):
        obtain(TINY)
        assert torch.get_num_threads() == 2
    assert used == [1]
