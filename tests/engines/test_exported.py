"""What `oprd export` writes is served by vLLM as it is (`vllm serve exported`)."""

import json
import urllib.request
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from oprd.cli.main import app
from tests import tiny
from tests.engines.models import PROMPTS, WIDE, greedy, save_prompts
from tests.engines.process import needs_vllm
from tests.engines.served import plain_server

pytestmark = needs_vllm


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student after one step, exported."""
    folder = tmp_path_factory.mktemp("served")
    for seed, name in enumerate(("student", "teacher")):
        tiny.model("llama", seed=seed, **WIDE, initializer_range=0.2).save_pretrained(folder / name)
        tiny.tokenizer().save_pretrained(folder / name)
    given = {
        "model_name_or_path": folder / "student",
        "teacher_model_name_or_path": folder / "teacher",
        "dataset_name": save_prompts(folder),
        "output_dir": folder / "run",
        "max_steps": 1,
        "max_completion_length": 8,
        "use_cpu": "true",
        "report_to": "none",
    }
    words = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
    for command in (["train", *words], ["export", str(folder / "run"), str(folder / "exported")]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
    return folder / "exported"


def test_an_exported_student_is_served_as_it_is(exported: Path):
    own = greedy(AutoModelForCausalLM.from_pretrained(exported).eval(), PROMPTS[0], 8)
    with plain_server(exported, exported.parent / "server.log") as url:
        asked = {
            "model": str(exported),
            "prompt": PROMPTS[0],
            "max_tokens": 8,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        request = urllib.request.Request(
            f"{url}/v1/completions",
            json.dumps(asked).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            (choice,) = json.load(answer)["choices"]
    assert choice["token_ids"] == own
