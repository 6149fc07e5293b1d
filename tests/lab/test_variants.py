import pytest
import torch

from lab import variants
from lab.pairs import PAIRS
from lab.readings import read_states
from lab.variants import select_consumed, write_layer_scales
from oprd.core.bridge import Bridge
from tests import tiny
from tests.lab import theory
from tests.training import runs


@pytest.mark.parametrize("positions", ["all", "last_k"])
def test_consumed_states_are_those_after_their_tokens(tmp_path, positions):
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    prompts, k = runs.PROMPTS[:4], 3
    made = runs.trainer(
        tmp_path,
        prompts=prompts,
        positions=positions,
        position_k=k,
        layers="2",
    )
    made.rollouts.select = select_consumed
    made.train()
    distances = []
    for prompt in prompts:
        ids = tiny.tokenizer()(prompt)["input_ids"]
        response = runs.scripted(ids)
        both = torch.tensor([ids + response])
        rows = [
            model(both, output_hidden_states=True).hidden_states[2][0, len(ids) :]
            for model in (student, teacher)
        ]
        taken = slice(None) if positions == "all" else slice(-k, None)
        distances.append((rows[0] - rows[1])[taken].square().mean().item())
    expected = sum(distances) / len(distances)
    assert made.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:.*does not say which models:UserWarning")
def test_scaled_layers_are_relative_to_the_teachers_mean_square(tmp_path, monkeypatch):
    models = theory.models()
    batch = theory.rollouts(models)
    monkeypatch.setattr("lab.pairs.obtain", lambda recipe: recipe.folder)
    monkeypatch.setattr(variants, "load_models", lambda student, teacher: models)
    monkeypatch.setattr(variants, "write_rollouts", lambda *_, seed: batch)
    bridge = Bridge.load(write_layer_scales(PAIRS["sums"], tmp_path / "new", seed=0))
    student, teacher = read_states(models.student, batch), read_states(models.teacher, batch)
    assert list(bridge.statistics) == list(student)
    for layer, rows in student.items():
        projected = (
            bridge.project_student(layer, rows),
            bridge.project_teacher(layer, teacher[layer]),
        )
        relative = (rows - teacher[layer]).square().mean() / teacher[layer].square().mean()
        torch.testing.assert_close((projected[0] - projected[1]).square().mean(), relative)
