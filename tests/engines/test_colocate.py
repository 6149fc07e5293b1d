"""`use_vllm` with vLLM in the same process, through the whole of `oprd train`, on a CPU."""

import json
from pathlib import Path
from typing import Any

import pytest

from oprd.runs.record import read_record
from recipes.demo.smollm2 import base_model_folder
from tests import tiny
from tests.engines.models import WIDE, ends_in, save, save_prompts
from tests.engines.process import in_process, needs_vllm

pytestmark = needs_vllm

LORA = {
    "use_peft": "true",
    "lora_r": 4,
    "lora_target_modules": "all-linear",
    "optim": "adamw_torch",
}


def train(folder: Path, **settings: Any) -> list[dict[str, list[list[int]]]]:
    """The rollouts of every step, as vLLM and as Transformers write them with the same weights."""
    found = in_process("engines.colocate", folder, json.dumps(settings))
    assert read_record(folder / "out") is not None
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student that stops at two tokens, and a teacher that stops at a third."""
    folder = tmp_path_factory.mktemp("models")
    at_once, middle = ends_in(tiny.model("llama", **WIDE, initializer_range=0.2))
    save(folder / "student", ends=[tiny.EOS, at_once], initializer_range=0.2)
    save(folder / "teacher", 1, ends=[tiny.EOS, middle], initializer_range=0.2)
    save_prompts(folder)
    return folder


@pytest.mark.parametrize("training", [{}, LORA], ids=["all weights", "LoRA"])
def test_weights_reach_the_engine_after_every_step(models: Path, training: dict[str, Any]):
    prompts = str(models / "prompts.jsonl")
    batches = train(models, dataset_name=prompts, overwrite="true", max_steps=4, **training)
    assert len(batches) == 4
    for step, batch in enumerate(batches):
        assert batch["vllm"] == batch["transformers"], f"after {step} steps"
    first, last = batches[0]["vllm"], batches[-1]["vllm"]
    # All prompts are in every batch: what differs is the student.
    assert sorted(map(str, first)) != sorted(map(str, last))


def test_rollouts_of_two_steps_come_at_once_and_within_their_limit(models: Path):
    first, second = train(
        models,
        dataset_name=str(models / "prompts.jsonl"),
        overwrite="true",
        max_steps=4,
        rollouts_ahead=2,
        rollouts_per_prompt=2,
        rollout_horizon=json.dumps({"from": 3, "to": 12, "steps": 2}),
    )
    for batch, limit in ((first, 3), (second, 12)):
        assert batch["vllm"] == batch["transformers"]
        assert len(batch["vllm"]) == 16
        assert max(map(len, batch["vllm"])) == limit


def test_rollouts_stop_at_the_end_tokens_of_both_models_or_are_cut(models: Path):
    (batch,) = train(
        models, dataset_name=str(models / "prompts.jsonl"), overwrite="true", max_steps=1
    )
    assert batch["vllm"] == batch["transformers"]
    at_once, middle = ends_in(tiny.model("llama", **WIDE, initializer_range=0.2))
    ends = {tiny.EOS, at_once, middle}
    lengths = [len(ids) for ids in batch["vllm"]]
    stopped = [ids[-1] in ends for ids in batch["vllm"]]
    assert not any(ends & set(ids[:-1]) for ids in batch["vllm"])
    assert [at_once] in batch["vllm"] and 12 in lengths
    assert any(s and 1 < n < 12 for s, n in zip(stopped, lengths, strict=True))
    (metrics,) = (models / "out" / "metrics.jsonl").read_text().splitlines()[:1]
    logged = json.loads(metrics)
    assert logged["completions/stopped_ratio"] == pytest.approx(sum(stopped) / len(stopped))


@pytest.mark.slow(minutes=5)
@pytest.mark.parametrize(
    "training",
    [{"learning_rate": 3e-4, "optim": "adamw_torch"}, {**LORA, "learning_rate": 5e-3}],
    ids=["all weights", "LoRA"],
)
def test_weights_of_a_pretrained_student_reach_the_engine_after_every_step(
    tmp_path: Path, training: dict[str, Any]
):
    model = base_model_folder(Path(".cache"))
    batches = train(
        tmp_path,
        model_name_or_path=model,
        teacher_model_name_or_path=model,
        teacher_template="Think first. {{ prompt }}",
        dataset_name="arithmetic",
        max_prompts=4,
        max_steps=4,
        max_completion_length=24,
        per_device_train_batch_size=4,
        dtype="float32",
        **training,
    )
    assert len(batches) == 4
    for step, batch in enumerate(batches):
        assert batch["vllm"] == batch["transformers"], f"after {step} steps"
    written = [sorted(map(str, batch["vllm"])) for batch in batches]
    assert written[0] != written[1] and written[0] != written[3]
