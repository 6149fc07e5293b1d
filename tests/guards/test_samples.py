"""Rollouts that are kept say what both models read, and keeping them changes nothing."""

import pytest
import torch

from oprd.models.tokenizers import token_texts
from oprd.runs.metrics import read_metrics
from oprd.runs.samples import read_positions, read_samples
from tests import tiny
from tests.training.runs import LORA, largest_difference, trainer, weights


def test_the_first_and_the_last_step_and_every_so_many_are_kept(tmp_path):
    trainer(tmp_path, max_steps=7, sample_steps=3).train()
    steps = [sample.step for sample in read_samples(tmp_path)]
    assert steps == [step for step in (1, 3, 6, 7) for _ in range(4)]
    assert [curve.step for curve in read_positions(tmp_path)] == [1, 3, 6, 7]


def test_steps_on_rollouts_that_were_used_before_are_kept_too(tmp_path):
    trainer(tmp_path, max_steps=8, sample_steps=4, scale="unit", updates_per_rollout=2).train()
    assert sorted({sample.step for sample in read_samples(tmp_path)}) == [1, 4, 8]
    assert [curve.step for curve in read_positions(tmp_path)] == [1, 4, 8]


def test_the_cosines_that_are_kept_are_those_that_are_logged(tmp_path):
    """With as many rollouts in a step as are kept, their mean is the step's."""
    trainer(tmp_path, max_steps=2, positions="last_k", position_k=3).train()
    for step in (1, 2):
        samples = [sample for sample in read_samples(tmp_path) if sample.step == step]
        cosines = [c for sample in samples for c in sample.cosine if c is not None]
        (line,) = [
            each for each in read_metrics(tmp_path) if each["step"] == step and "loss" in each
        ]
        assert sum(cosines) / len(cosines) == pytest.approx(line["rep_cosine"], abs=1e-4)
        for sample in samples:
            there = [c is not None for c in sample.cosine]
            assert there == list(sample.supervised)
            assert sum(there) == min(3, len(there))
        (curve,) = [curve for curve in read_positions(tmp_path) if curve.step == step]
        assert sum(curve.count) == len(cosines)
        total = sum(c * n for c, n in zip(curve.cosine, curve.count, strict=True))
        assert total / sum(curve.count) == pytest.approx(line["rep_cosine"], abs=1e-4)


def test_accumulated_micro_batches_share_the_rollouts_that_are_kept(tmp_path):
    options = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 6}
    trainer(tmp_path, max_steps=1, **options).train()
    assert len(read_samples(tmp_path)) == 4
    assert sum(read_positions(tmp_path)[0].count) == int(
        read_metrics(tmp_path)[0]["supervised_tokens"]
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": "unit", "updates_per_rollout": 2},
        {"prefix_gradients": False, "positions": "last_k", "position_k": 2},
        {"output_loss": "reverse_kl", "representation_weight": 0.0},
    ],
)
def test_keeping_changes_nothing(tmp_path, options):
    ended = []
    for every in (0, 1):
        made = trainer(tmp_path / str(every), max_steps=4, sample_steps=every, **options)
        made.train()
        ended.append(weights(made.student))
    assert largest_difference(*ended) == 0
    assert not read_samples(tmp_path / "0")
    kept = read_samples(tmp_path / "1")
    assert {sample.step for sample in kept} == {1, 2, 3, 4}
    compared = [c for sample in kept for c in sample.cosine if c is not None]
    assert bool(compared) == ("output_loss" not in options)


def test_a_range_test_keeps_nothing_of_its_own(tmp_path):
    trainer(tmp_path, max_steps=2, learning_rate="auto", per_device_train_batch_size=8).train()
    assert [sample.step for sample in read_samples(tmp_path)] == [1] * 4 + [2] * 4


def test_a_resumed_run_goes_on_with_what_was_kept(tmp_path):
    options = {"max_steps": 4, "sample_steps": 1, "save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, **options).train()
    whole = read_samples(tmp_path)
    trainer(tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert read_samples(tmp_path) == whole


def test_a_run_that_starts_anew_forgets_what_was_kept(tmp_path):
    trainer(tmp_path, max_steps=3, sample_steps=1).train()
    trainer(tmp_path, max_steps=1).train()
    assert {sample.step for sample in read_samples(tmp_path)} == {1}


def test_an_adapter_on_a_shared_base_is_kept_too(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(**LORA)
    trainer(tmp_path, max_steps=1, peft_config=config).train()
    assert all(c is not None for s in read_samples(tmp_path) for c in s.cosine)


def test_a_prompt_and_its_response_are_text(tmp_path):
    made = trainer(tmp_path, rollout=lambda ids: list("so 5 é!".encode()), prompts=["2 + 3?"] * 8)
    made.train()
    sample = read_samples(tmp_path)[0]
    assert sample.prompt == made.tokenizer.decode(made.tokenizer("2 + 3?")["input_ids"])
    assert len(sample.tokens) == len(sample.cosine) == 8


def test_tokens_joined_are_the_text():
    tokenizer = tiny.tokenizer()
    for text in ("a é 😀 b", "  two  spaces", "日本語\n\n", "e\u0301"):
        ids = tokenizer(text)["input_ids"]
        texts = token_texts(tokenizer, ids)
        assert len(texts) == len(ids)
        assert "".join(texts) == text == tokenizer.decode(ids)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_that_is_cut_is_one_mark(cut):
    tokenizer = tiny.tokenizer()
    ids = tokenizer("😀")["input_ids"][:cut]
    texts = token_texts(tokenizer, ids)
    assert len(texts) == cut and "".join(texts).strip("\ufffd") == ""


def test_bytes_that_are_no_text_do_not_run_away():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 256, (200,), generator=generator).tolist()
    assert len(token_texts(tiny.tokenizer(), ids)) == 200
