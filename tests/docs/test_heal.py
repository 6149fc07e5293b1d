"""The recipe that heals: weights that are rounded, blocks that are gone."""

import argparse
import copy
import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from oprd.core.capture import blocks, num_layers
from oprd.evaluation.tasks.base import shared_prompts
from oprd.evaluation.tasks.load import generate_task
from oprd.models.blocks import last_states
from oprd.models.reading import View
from oprd.runs.metrics import read_metrics
from tests import tiny

ROOT = Path(__file__).parents[2]
HEAL = ROOT / "recipes" / "heal"
RESULTS = list((HEAL / "results").glob("*/compared.json"))


@pytest.fixture(scope="module")
def recipe():
    """Its modules, which import one another as scripts of one folder do."""
    names = ("int4", "prune", "heal", "compare")
    before = dict(os.environ)
    sys.path.insert(0, str(HEAL))
    try:
        yield argparse.Namespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(HEAL))
        for name in names:
            sys.modules.pop(name, None)
        # Scripts set what libraries read when they are imported.
        os.environ.clear()
        os.environ.update(before)


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


def test_a_folder_that_is_no_runs_is_left_alone_and_nothing_is_loaded(
    recipe, tmp_path, monkeypatch
):
    (tmp_path / "mine").write_text("mine")
    monkeypatch.setattr(sys, "argv", ["heal.py", "--int4", "--run", str(tmp_path)])
    monkeypatch.setattr(recipe.heal, "generate_task", None)
    with pytest.raises(SystemExit, match=r"--run: .* is there and no run"):
        recipe.heal.main()
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]


def test_the_recipe_runs_to_its_end_and_once_more_in_the_place_of_the_first(
    recipe, whole, tmp_path, monkeypatch, capsys
):
    whole.save_pretrained(tmp_path / "whole")
    tiny.tokenizer().save_pretrained(tmp_path / "whole")
    arguments = {"model": tmp_path / "whole", "run": tmp_path / "run", "drop": 2, "problems": 1}
    for steps in (1, 2):
        given = {**arguments, "steps": steps, "rollouts": 2}
        words = [str(word) for name, value in given.items() for word in (f"--{name}", value)]
        monkeypatch.setattr(sys, "argv", ["heal.py", *words])
        recipe.heal.main()
        assert "recovered: not known (" in capsys.readouterr().out
        logged = [line["step"] for line in read_metrics(tmp_path / "run") if "loss" in line]
        assert logged == list(range(1, steps + 1))
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_what_is_healed_is_float32_whatever_the_checkpoint_is_in(
    recipe, whole, tmp_path, monkeypatch, capsys
):
    base, folder = str(tmp_path / "base"), tmp_path / "demo"
    whole.bfloat16().save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    words = ["--model", base, "--drop", "2", "--steps", "1", "--rollouts", "2", "--problems", "1"]
    monkeypatch.setattr(sys, "argv", ["heal.py", *words, "--run", str(tmp_path / "run")])
    recipe.heal.main()
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float32}
    # The demo's own model is an adapter on a base from the hub, which is in bfloat16 there.
    get_peft_model(whole, LoraConfig(target_modules=["q_proj"])).save_pretrained(folder / "teacher")
    (folder / "smollm2.py").write_text(f"def base_model_folder(cache):\n    return {base!r}\n")
    monkeypatch.setattr(recipe.heal, "DEMO", folder)
    assert recipe.heal.demo_model()[0].dtype == torch.float32


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


# --- the comparison -------------------------------------------------------------------------------


def test_what_was_lost_is_the_whole_of_what_can_be_recovered(recipe):
    before, whole = {"accuracy": 0.1, "nats": 3.0}, {"accuracy": 0.9, "nats": 1.0}
    runs = [before, {"accuracy": 0.5, "nats": 2.5}, whole]
    found = recipe.compare.recovered(runs, before, whole)
    assert found["accuracy"] == pytest.approx([0, 0.5, 1])
    assert found["nats"] == pytest.approx([0, 0.25, 1])


def test_an_interval_is_students_over_seeds(recipe):
    found = recipe.compare.estimate([1.0, 2.0, 3.0])
    assert found["mean"] == 2 and found["high"] - 2 == pytest.approx(4.302653 / 3**0.5)


def test_a_grid_goes_on_where_its_best_rate_is_at_an_end(recipe, monkeypatch):
    case = dataclasses.replace(recipe.compare.CASES["smollm2"], ladder=(1, 2, 3, 4, 5))

    def grid(accuracies):
        return lambda case, method, rates: {
            rate: {"accuracy": accuracies[rate - 1], "nats": rate} for rate in rates
        }

    for accuracies, best in (
        ([0, 1, 0, 0, 0], 2),
        ([0, 0, 0, 1, 2], 5),
        # Of equal ones that of fewer nats.
        ([3, 3, 3, 3, 3], 1),
        ([9, 0, 1, 0, 0], 3),
    ):
        monkeypatch.setattr(recipe.compare, "grid", grid(accuracies))
        assert recipe.compare.best_rate(case, "OPRD") == best


def test_no_problem_that_is_reported_chooses_a_rate(recipe):
    case = recipe.compare.CASES["smollm2"]
    reported, tuning = (case.held_out(part) for part in ("reported", "tuning"))
    assert (len(reported.problems), len(tuning.problems)) == case.counts
    assert not shared_prompts(reported, tuning)
    assert not shared_prompts(case.problems("train", 200, 1000), reported)


def test_the_supervised_method_learns_the_response_and_not_the_prompt(
    recipe, whole, tmp_path, monkeypatch
):
    case = dataclasses.replace(
        recipe.compare.CASES["smollm2"], name="masked", load=lambda: (whole, tiny.tokenizer())
    )
    monkeypatch.setattr(recipe.compare, "CASES", {"masked": case})
    answers = recipe.compare.answered(case, case.problems("train", 2, 0), seed=0)
    trainer = recipe.compare.supervised(
        whole, tiny.tokenizer(), answers, output_dir=str(tmp_path), report_to=[], use_cpu=True
    )
    expected = [
        [i if own else -100 for i, own in zip(ids, mask, strict=True)]
        for ids, mask in zip(answers["input_ids"], answers["completion_mask"], strict=True)
    ]
    (batch,) = trainer.get_train_dataloader()
    rows = zip(batch["labels"], batch["attention_mask"].bool(), strict=True)
    found = [labels[read].tolist() for labels, read in rows]
    assert sorted(found) == sorted(expected)
    assert all(labels[0] == -100 != labels[-1] for labels in found)


@pytest.mark.slow(minutes=2)
def test_a_comparison_goes_on_where_it_ended_and_says_who_is_ahead(
    recipe, whole, tmp_path, monkeypatch, capsys
):
    case = dataclasses.replace(
        recipe.compare.CASES["smollm2"],
        name="tiny",
        load=lambda: (whole, tiny.tokenizer()),
        dropped=(2,),
        counts=(6, 4),
        seconds=0.2,
        tuned=0.1,
        limit=8,
        ladder=(1e-4, 1e-3, 1e-2),
    )
    monkeypatch.setattr(recipe.compare, "CASES", {"tiny": case})
    monkeypatch.setattr(recipe.compare, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["compare.py", "tiny"])
    # Random models solve nothing, and what was not lost cannot be recovered.
    monkeypatch.setattr(recipe.compare, "FIGURES", ("nats",))
    recipe.compare.main()
    found = json.loads((tmp_path / "tiny" / "compared.json").read_text())
    assert set(found["methods"]) == {"OPRD", "reverse KL", "supervised"}
    assert set(found["OPRD minus"]) == {"reverse KL", "supervised"}
    assert all(len(of["taken"]) == 3 for of in found["methods"].values())
    assert "finished" in capsys.readouterr().out
    recipe.compare.main()
    assert "finished" not in capsys.readouterr().out


@pytest.mark.parametrize("case", sorted(path.parent.name for path in RESULTS))
def test_the_page_says_what_was_measured(recipe, case):
    found = json.loads((HEAL / "results" / case / "compared.json").read_text())
    page = (ROOT / "docs" / "teachers.md").read_text()
    assert "\n".join(recipe.compare.table(found)) in page


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
