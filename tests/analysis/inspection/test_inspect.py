from dataclasses import replace
from functools import partial

import pytest
import torch
import yaml
from datasets import Dataset
from transformers import AutoModelForCausalLM, Qwen3MoeConfig

from oprd.analysis.inspection import inspect, need
from oprd.analysis.inspection.inspect import inspect_models
from oprd.calibration.models import FitModels
from oprd.models.counting import bytes_of, tensors
from tests import tiny
from tests.analysis.inspection.test_asked import ASKED
from tests.calibration.pairs import sibling, student

PROMPTS = Dataset.from_dict({"prompt": [f"What is {n}?" for n in range(6)]})


FREE = 2**30


def inspected(folder, asked=ASKED, dtype=torch.float32, both=(student, sibling), free=FREE):
    models = FitModels(*(make().to(dtype) for make in both), tiny.tokenizer(), tiny.tokenizer())
    return inspect_models(models, PROMPTS, asked, {}, folder, free, progress=False)


def test_a_report_holds_all_that_makes_it_believed(tmp_path):
    report = inspected(tmp_path)
    assert report["tokens"]["stops"] == {"student": ["<eos>"], "teacher": ["<eos>"]}
    assert report["rollouts"]["count"] == 6
    assert report["provenance"]["rollouts"]["max_completion_length"] == 8
    assert set(report["seconds"]) == {"rollouts", "measuring"}
    assert f"output_dir: {tmp_path}/run" in report["recipe"]
    assert report["versions"] and report["machine"] and report["format"] == 1


def test_the_same_rollouts_give_the_same_figures(tmp_path):
    first, second = (inspected(tmp_path) for _ in range(2))
    for name in ("similarity", "layers", "ends", "bridge", "heads", "advice"):
        assert first[name] == second[name]


def test_the_run_that_is_advised_is_filled_by_the_prompts(tmp_path):
    def rollouts_of_a_step(name, asked):
        report = inspected(tmp_path / name, asked)
        run = yaml.safe_load(report["recipe"])
        batch = run["per_device_train_batch_size"]
        return report["rollouts"]["count"], batch * run["gradient_accumulation_steps"]

    assert rollouts_of_a_step("all", ASKED) == (6, 4)
    few = replace(ASKED, max_prompts=3)
    assert rollouts_of_a_step("few", few) == (3, 4)
    # Of the others nobody has looked whether they are dropped.
    assert rollouts_of_a_step("dropped", replace(few, long_prompts="drop")) == (3, 3)


def test_memory_is_of_a_run_under_autocast_where_there_is_an_accelerator(tmp_path, monkeypatch):
    """The models stay on the CPU, whose autocast is counted."""
    asked = replace(ASKED, sampling=replace(ASKED.sampling, max_new_tokens=64))
    whole = inspected(tmp_path, asked)["memory"]["bytes"]
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    half = inspected(tmp_path, asked)["memory"]["bytes"]
    assert half["activations"] < whole["activations"]
    assert half["gradients"] == whole["gradients"]


def test_room_is_what_the_models_of_the_run_leave(tmp_path, monkeypatch):
    """In float32 they take twice what these in bfloat16 do."""
    weights = sum(bytes_of(tensors(model)) for model in (student(), sibling()))
    rooms = []
    monkeypatch.setattr(need, "told", lambda need, room: rooms.append(room) or ("", True))
    inspected(tmp_path, dtype=torch.bfloat16)
    inspected(tmp_path, replace(ASKED, dtype="bfloat16"), torch.bfloat16)
    inspected(tmp_path, dtype=torch.bfloat16, free=weights // 2)
    assert rooms == [
        pytest.approx(FREE - weights, abs=1e4),
        pytest.approx(FREE - weights / 2, abs=1e4),
        0,
    ]


def test_models_that_cannot_be_counted_are_inspected_all_the_same(tmp_path):
    # Without values torch multiplies grouped experts in bfloat16 alone.
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}

    def mixture(seed):
        config = Qwen3MoeConfig(
            **{**tiny.GATED, "head_dim": 8, "decoder_sparse_step": 1}, **experts
        )
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config).eval()

    both = (partial(mixture, 0), partial(mixture, 1))
    report = inspected(tmp_path, dtype=torch.bfloat16, both=both)
    assert report["memory"]["bytes"] is None
    assert report["memory"]["said"].startswith("Memory: not known before the first step (")
    assert yaml.safe_load(report["recipe"])["max_steps"] == 200


def test_several_processes_are_refused(tmp_path, monkeypatch):
    class Two:
        num_processes = 2

    monkeypatch.setattr(inspect, "PartialState", Two)
    with pytest.raises(ValueError, match="one process's work, and these are 2: run it alone"):
        inspected(tmp_path)
    assert not list(tmp_path.iterdir())
