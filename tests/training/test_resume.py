import json
import logging
from collections import namedtuple

import pytest
import torch
from datasets import IterableDataset
from peft import LoraConfig

from oprd import OPRDTrainer
from tests import tiny
from tests.training.runs import PROMPTS, settings, trainer, weights
from tests.training.test_trainer import LORA

Loaded = namedtuple("Loaded", ["missing_keys", "unexpected_keys"])


def steps(folder, **options):
    return {
        "folder": folder,
        "rollout": None,
        "max_steps": 4,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": 2,
        **options,
    }


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="plain"),
        pytest.param(
            {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}, id="accumulation"
        ),
        pytest.param({"prompts": PROMPTS[:8]}, id="at the end of an epoch"),
        pytest.param({"prompts": PROMPTS[:4]}, id="epochs of one step"),
        pytest.param({"prompts": PROMPTS[:12], "max_steps": 6}, id="inside a later epoch"),
        pytest.param({"dropout": 0.3}, id="dropout"),
        pytest.param({"lora": True}, id="lora"),
        pytest.param({"scale": "layer"}, id="scaled by layer"),
        pytest.param({"eval_strategy": "epoch", "prompts": PROMPTS[:8]}, id="evaluation after it"),
    ],
)
def test_a_resumed_run_ends_with_the_weights_of_one_never_stopped(tmp_path, options):
    dropout, lora = options.pop("dropout", 0.0), options.pop("lora", False)

    def run(folder, resume=None):
        made = trainer(
            **steps(folder, **options),
            eval_prompts=PROMPTS[:4],
            student=tiny.model(seed=1, attention_dropout=dropout),
            peft_config=LoraConfig(**LORA, lora_dropout=0.3) if lora else None,
        )
        made.train(resume_from_checkpoint=resume)
        return weights(made.model)

    whole = run(tmp_path / "whole")
    run(tmp_path / "first")
    last = max((tmp_path / "first").glob("checkpoint-*"))
    stopped = last.with_name(f"checkpoint-{int(last.name.split('-')[1]) - 2}")
    resumed = run(tmp_path / "resumed", str(stopped))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_resumed_run_continues_its_metrics(tmp_path):
    trainer(**steps(tmp_path)).train()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "lo')  # as a crash would leave it
    trainer(**steps(tmp_path)).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]


@pytest.mark.parametrize("lora", [False, True])
def test_tied_weights_of_which_a_checkpoint_holds_one_are_not_missed(
    tmp_path, caplog, monkeypatch, lora
):
    def run(resume=None):
        made = trainer(
            **steps(tmp_path, save_steps=1, max_steps=2 if resume else 1),
            student=tiny.model(seed=1, tie_word_embeddings=True),
            peft_config=LoraConfig(**LORA) if lora else None,
        )
        made.train(resume)
        return made

    run()
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level(logging.WARNING):
        resumed = run("auto")
        assert "lm_head" not in caplog.text and "missing" not in caplog.text
        # What is missing indeed is still said.
        resumed._issue_warnings_after_load(Loaded(["model.norm.weight", "lm_head.weight"], []))
    assert "model.norm.weight" in caplog.text
    assert lora or "lm_head" not in caplog.text


@pytest.mark.parametrize(("prompts", "says"), [(8, True), (64, False)])
def test_a_stream_that_began_again_before_the_checkpoint_is_said_to(
    tmp_path, caplog, prompts, says
):
    def run(resume=None):
        rows = [{"prompt": f"{n}?"} for n in range(prompts)]
        made = OPRDTrainer(
            tiny.model(seed=1),
            tiny.model(seed=2),
            settings(tmp_path, max_steps=4, save_strategy="steps", save_steps=3),
            IterableDataset.from_generator(lambda: iter(rows)),
            processing_class=tiny.tokenizer(),
        )
        made.train(resume_from_checkpoint=resume)

    run()
    assert "had begun again" not in caplog.text
    run(str(tmp_path / "checkpoint-3"))
    assert ("had begun again" in caplog.text) == says
