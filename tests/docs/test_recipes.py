"""Every recipe is run for two steps, with tiny models in the place of its own."""

import json
from pathlib import Path

import pytest
import yaml
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from oprd.cli.main import app
from tests import tiny

RECIPES = Path(__file__).parents[2] / "src/oprd/recipes"
CONFIGS = sorted(RECIPES.glob("*.yaml"))
TRAINING = [path for path in CONFIGS if "model_name_or_path" in yaml.safe_load(path.read_text())]
# What this machine lacks, and lengths that tiny models lack.
OVERRIDES = {
    "max_steps": "2",
    "max_completion_length": "8",
    "save_strategy": "no",
    "use_vllm": "false",
    "bf16": "false",
    "use_cpu": "true",
    "report_to": "none",
}


@pytest.fixture
def places(tmp_path):
    models = {
        "student": tiny.model(seed=1),
        "teacher": tiny.model(seed=2),
        "wider": tiny.model(seed=3, num_hidden_layers=4, hidden_size=48),
    }
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
        tiny.tokenizer().save_pretrained(tmp_path / name)
    adapter = get_peft_model(tiny.model(seed=1), LoraConfig(r=2, target_modules=["q_proj"]))
    adapter.peft_config["default"].base_model_name_or_path = str(tmp_path / "student")
    adapter.save_pretrained(tmp_path / "adapter")
    prompts = "".join(json.dumps({"prompt": f"what is {n}?"}) + "\n" for n in range(32))
    (tmp_path / "prompts.jsonl").write_text(prompts)
    return tmp_path


def test_every_recipe_is_known():
    training = {"quickstart", "lora", "paper", "opd", "mixed", "bridge", "crossfade"}
    assert {path.stem for path in CONFIGS} == {*training, "fsdp2"}
    assert {path.stem for path in TRAINING} == training


@pytest.mark.parametrize("recipe", TRAINING, ids=lambda path: path.stem)
def test_a_recipe_trains(recipe, places):
    config = yaml.safe_load(recipe.read_text())
    teacher = "adapter" if "adapter" in config["teacher_model_name_or_path"] else "teacher"
    teacher = "wider" if "bridge" in config else teacher
    overrides = {
        **OVERRIDES,
        "model_name_or_path": str(places / "student"),
        "teacher_model_name_or_path": str(places / teacher),
        "dataset_name": str(places / "prompts.jsonl"),
        "output_dir": str(places / "run"),
    }
    arguments = [part for name, value in overrides.items() for part in (f"--{name}", value)]
    result = CliRunner().invoke(app, ["train", "--config", str(recipe), *arguments])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in (places / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]
    record = json.loads((places / "run/run.json").read_text())
    assert record["one_base_serves_both"] == (recipe.stem == "lora")
