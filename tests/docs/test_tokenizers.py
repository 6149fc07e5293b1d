"""Every configuration that the page on tokenizers shows is run, with tiny models in their place."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oprd.cli.main import app
from tests import tiny
from tests.docs.test_recipes import OVERRIDES
from tests.models.built_tokenizers import wrapped

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[str]:
    """Its configurations."""
    text = (ROOT / page).read_text()
    return re.findall(r"^```yaml\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


RUN, SPECIAL = blocks("docs/tokenizers.md")


SHORT = blocks("docs/how-to/tokenizer.md")[0]


@pytest.mark.parametrize("config", [RUN + SPECIAL, SHORT], ids=["page", "how to"])
def test_a_configuration_trains(config, tmp_path, monkeypatch):
    """A teacher of another vocabulary, and tokens of the page's names in both."""
    student, teacher = (tiny.tokenizer().backend_tokenizer.to_str() for _ in range(2))
    backend = type(tiny.tokenizer().backend_tokenizer)
    ours = wrapped(backend.from_str(student), "<|im_end|>", "<think>")
    theirs = wrapped(backend.from_str(teacher), "<end_of_turn>")
    # The same letters by other numbers.
    theirs.add_tokens(["the ", "what is "])
    models = {
        "student": (tiny.model(seed=1, vocab_size=len(ours), eos_token_id=ours.eos_token_id), ours),
        "stranger": (
            tiny.model(
                seed=2, vocab_size=len(theirs), eos_token_id=theirs.eos_token_id, hidden_size=48
            ),
            theirs,
        ),
    }
    for name, (model, tokenizer) in models.items():
        model.save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    rows = [{"prompt": f"what is {n}?"} for n in range(32)]
    monkeypatch.chdir(tmp_path)
    Path("questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("config.yaml").write_text(config)
    overrides = {
        **OVERRIDES,
        "logging_steps": "1",
        "bridge_prompts": "16",
        "bridge_rank": "3",
        "model_name_or_path": "student",
        "teacher_model_name_or_path": "stranger",
        "dataset_name": "questions.jsonl",
        "output_dir": "run",
    }
    arguments = [part for name, value in overrides.items() for part in (f"--{name}", value)]
    result = CliRunner().invoke(app, ["train", "--config", "config.yaml", *arguments])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    shares = [line["completions/shared_ratio"] for line in lines if "loss" in line]
    assert len(shares) == 2 and all(0 < share <= 1 for share in shares)
