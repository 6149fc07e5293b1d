"""The recipe that heals: weights that are rounded, blocks that are gone."""

import argparse
import copy
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from oprd.core.capture import blocks, num_layers
from oprd.evaluation.tasks.load import generate_task
from oprd.models.blocks import last_states
from oprd.models.reading import View
from oprd.runs.metrics import read_metrics
from tests import tiny

ROOT = Path(__file__).parents[2]
HEAL = ROOT / "recipes" / "heal"


@pytest.fixture(scope="module")
def recipe():
    """Its modules, which import one another as scripts of one folder do."""
    sys.path.insert(0, str(HEAL))
    try:
        names = ("int4", "prune", "heal")
        yield argparse.Namespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(HEAL))
        for name in ("int4", "prune", "heal"):
            sys.modules.pop(name, None)


@pytest.fixture
def whole():
    """A tiny model whose layers have inputs in groups of 32."""
    return tiny.model("llama", seed=3, intermediate_size=64, max_position_embeddings=512)


def view() -> View:
    return View.of_texts(*tiny.batch((12, 9)))


def naive(weight: torch.Tensor) -> torch.Tensor:
    """Each weight by itself, from the definition."""
    out = weight.clone()
    for row in range(weight.shape[0]):
        for start in range(0, weight.shape[1], 32):
            group = weight[row, start : start + 32].tolist()
            step = float(torch.tensor(max(map(abs, group)) / 7).bfloat16())
            for column, value in enumerate(group):
                level = max(-7, min(7, round(value / step))) if step else 0
                out[row, start + column] = level * step
    return out


def test_weights_are_rounded_to_the_nearest_of_fifteen_levels(recipe):
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    weight[1, 32:] = 0
    assert torch.equal(recipe.int4.rounded(weight), naive(weight))
    levels = {len(group.unique()) for row in recipe.int4.rounded(weight) for group in row.split(32)}
    assert max(levels) <= 15


@given(
    scale=st.floats(1e-30, 1e30),
    seed=st.integers(0, 10_000),
)
def test_what_is_rounded_stays_under_further_rounding(scale, seed):
    sys.path.insert(0, str(HEAL))
    try:
        rounded = importlib.import_module("int4").rounded
    finally:
        sys.path.remove(str(HEAL))
    once = rounded(scale * torch.randn(2, 64, generator=torch.Generator().manual_seed(seed)))
    assert torch.equal(rounded(once), once)


def test_the_function_is_that_of_rounded_weights_in_the_blocks_alone(recipe, whole):
    other = copy.deepcopy(whole)
    for module in blocks(other).modules():
        if isinstance(module, nn.Linear):
            module.weight.data = naive(module.weight.data)
    count = recipe.int4.quantize(whole)
    assert count == sum(
        m.weight.numel() for m in blocks(whole).modules() if hasattr(m, "in_features")
    )
    assert torch.equal(last_states(whole, view()), last_states(other, view()))
    assert type(whole.lm_head) is nn.Linear


def test_the_gradient_goes_straight_through(recipe):
    generator = torch.Generator().manual_seed(1)
    linear = nn.Linear(32, 4)
    rows, seed = torch.randn(5, 32, generator=generator), torch.randn(5, 4, generator=generator)
    linear(rows).backward(seed)
    expected = linear.weight.grad, linear.bias.grad
    linear.zero_grad()
    linear.__class__ = recipe.int4.Int4Linear
    rows.requires_grad_()
    linear(rows).backward(seed)
    assert torch.allclose(linear.weight.grad, expected[0])
    assert torch.allclose(linear.bias.grad, expected[1])
    assert torch.allclose(rows.grad, seed @ recipe.int4.rounded(linear.weight.detach()))


def test_an_optimizer_step_is_seen_by_the_next_forward_pass(recipe):
    linear = nn.Linear(32, 4, bias=False)
    linear.__class__ = recipe.int4.Int4Linear
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(linear.parameters(), lr=0.1)
    for _ in range(3):
        with torch.no_grad():
            read = linear(rows)
        assert torch.equal(read, rows @ recipe.int4.rounded(linear.weight.detach()).T)
        linear(rows).square().sum().backward()
        optimizer.step()


def test_a_checkpoint_holds_the_plain_weights_and_gives_the_same_function(recipe, whole, tmp_path):
    plain = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    recipe.int4.quantize(whole)
    whole.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) <= set(plain)
    assert all(torch.equal(tensor, plain[name]) for name, tensor in saved.items())
    again = type(whole).from_pretrained(tmp_path).eval()
    recipe.int4.quantize(again)
    assert torch.equal(last_states(again, view()), last_states(whole, view()))


def test_a_settled_model_needs_no_rounding(recipe, whole, tmp_path):
    recipe.int4.quantize(whole)
    before = last_states(whole, view())
    recipe.int4.settle(whole)
    assert torch.equal(last_states(whole, view()), before)
    whole.save_pretrained(tmp_path)
    plain = type(whole).from_pretrained(tmp_path).eval()
    assert torch.equal(last_states(plain, view()), before)
    recipe.int4.quantize(plain)
    assert torch.equal(last_states(plain, view()), before)


def test_inputs_that_make_no_whole_groups_are_refused(recipe):
    model = tiny.model("llama", intermediate_size=48)
    with pytest.raises(ValueError, match="48 inputs are no multiple of 32"):
        recipe.int4.quantize(model)
    assert not [m for m in model.modules() if isinstance(m, recipe.int4.Int4Linear)]


def test_a_model_without_linear_layers_is_refused(recipe):
    with pytest.raises(ValueError, match=r"no torch\.nn\.Linear"):
        recipe.int4.quantize(tiny.model("gpt2"))


@pytest.mark.parametrize("lost", [["--drop", "2"], ["--drop_least", "1"], ["--int4"]])
def test_the_whole_model_teaches_what_it_lost(recipe, whole, lost, tmp_path):
    options = recipe.heal.options_of(
        [*lost, "--steps", "2", "--rollouts", "4", "--run", str(tmp_path)]
    )
    train = generate_task("additions", "train", 8, seed=2)
    tokenizer = tiny.tokenizer()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    harmed = recipe.heal.harm(whole, tokenizer, train, options)
    start = last_states(harmed.student, view())
    made = recipe.heal.make_trainer(whole, harmed, tokenizer, train, options, use_cpu=True)
    depth = num_layers(harmed.student)
    assert depth == (3 if lost == ["--int4"] else 2)
    assert made.pairs[-1] == (depth, 3)
    if lost == ["--drop", "2"]:
        assert list(made.pairs) == [(1, 1), (2, 3)]
    made.train()
    losses = [line["loss"] for line in read_metrics(tmp_path) if "loss" in line]
    assert len(losses) == 2 and all(0 < loss < float("inf") for loss in losses)
    assert not torch.equal(last_states(harmed.student, view()), start)
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())


def test_a_pruned_model_is_saved_with_the_settings_that_heal_it(recipe, whole, tmp_path, capsys):
    whole.save_pretrained(tmp_path / "whole")
    tiny.tokenizer().save_pretrained(tmp_path / "whole")
    arguments = ["--model", str(tmp_path / "whole"), "--output", str(tmp_path / "pruned")]
    recipe.prune.main([*arguments, "--drop_least", "1", "--prompts", "additions"])
    printed = capsys.readouterr().out
    assert f"model_name_or_path: {tmp_path / 'pruned'}" in printed
    assert re.search(r'layer_pairing: "1:[123],2:3"', printed)
    assert num_layers(type(whole).from_pretrained(tmp_path / "pruned")) == 2
    with pytest.raises(SystemExit):
        recipe.prune.main([*arguments, "--drop_least", "1"])


@pytest.mark.slow(minutes=8)
def test_the_recipe_heals_a_pretrained_model(tmp_path):
    command = [sys.executable, str(HEAL / "heal.py"), "--drop", "10-15", "--steps", "12"]
    command += ["--problems", "32", "--run", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "The student lacks the blocks 10, 11, 12, 13, 14, 15 of 30." in done.stdout
    assert re.search(r"recovered: -?\d+%", done.stdout)
    losses = [line["loss"] for line in read_metrics(tmp_path / "run") if "loss" in line]
    assert len(losses) == 12 and losses[-1] < losses[0] / 2
    files = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").rglob("*")}
    assert {"model.safetensors", "samples/whole.jsonl", "samples/healed.jsonl"} <= files
