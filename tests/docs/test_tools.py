"""The recipe with a tool: its words are read by both models and supervised by none."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from oprd.reports import page
from oprd.reports.told import read
from oprd.runs.folder import read_run
from oprd.runs.metrics import read_metrics
from oprd.runs.samples import read_samples
from tests import tiny
from tests.training.runs import script_rollouts

RECIPE = Path(__file__).parents[2] / "recipes" / "tools" / "tools.py"
CALL = '<tool_call>\n{"name": "add", "arguments": {"first": 47, "second": 86}}\n</tool_call>'
ANSWER = "It is 133."


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("tools_recipe", RECIPE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A student and a wider teacher that know Qwen3's template, whose tokens are bytes."""
    folder = tmp_path_factory.mktemp("models")
    tokenizer = tiny.calling_tokenizer()
    size = {"vocab_size": 300, "max_position_embeddings": 4096}
    for name, more in (("student", {}), ("teacher", {"hidden_size": 48})):
        end = {"eos_token_id": tokenizer.eos_token_id}
        tiny.model("qwen3", seed=1, **size, **more, **end).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="module")
def run(recipe, places, tmp_path_factory):
    """The recipe's run folder, of rollouts that call the tool once and then answer."""
    folder = tmp_path_factory.mktemp("runs") / "tools"
    made = recipe.make_trainer(
        str(places / "student"),
        str(places / "teacher"),
        folder,
        max_steps=2,
        per_device_train_batch_size=4,
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=False,
    )
    tokenizer = made.tokenizer

    def rollout(prompt_ids):
        returned = "<tool_response>" in tokenizer.decode(prompt_ids)
        return tokenizer(f"{ANSWER if returned else CALL}<|im_end|>")["input_ids"]

    script_rollouts(made, rollout)
    made.train()
    return folder


def test_what_the_tool_returned_is_read_and_not_supervised(run):
    for sample in read_samples(run):
        own = "".join(
            t for t, written in zip(sample.tokens, sample.written, strict=True) if written
        )
        others = sample.response.replace(CALL, "").replace(ANSWER, "")
        assert own.replace("<|im_end|>", "") == CALL + ANSWER
        assert "<tool_response>\n133\n</tool_response>" in others
        assert list(sample.supervised) == list(sample.written)
    supervised = [line["supervised_tokens"] for line in read_metrics(run) if "loss" in line]
    per_rollout = sum(read_samples(run)[0].written)
    assert supervised == [4 * per_rollout] * 2


def test_the_report_shows_what_was_supervised(run):
    text = page.html(read([read_run(run)]))
    sample = read_samples(run)[0]
    own = sum(sample.written)
    counts = f"{len(sample.tokens)} tokens, {own} written by the student, {own} supervised"
    assert counts in text
    dotted = "".join(re.findall(r'<span class="tool">(.*?)</span>', text, flags=re.DOTALL))
    assert "133" in dotted and "It is" not in dotted


def test_the_recipe_asks_for_the_tool(recipe):
    asked = recipe.prompts(8)
    assert all(row["prompt"][0]["content"].startswith(recipe.ASK) for row in asked)
    assert recipe.add(47, 86) == 133
    assert json.dumps(asked[0]["prompt"])
