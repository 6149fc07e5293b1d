"""The gradients of the teacher's output, against autograd on the whole model."""

import pytest
import torch

from oprd.calibration import gradients
from oprd.calibration.gradients import output_gradients
from oprd.core.bridge import BridgeFitter
from oprd.models.reading import View
from tests import tiny

LAYERS = (1, 3)


def view():
    ids, mask = tiny.batch((6, 9), seed=3)
    rows = mask.bool()
    rows[:, -1] = rows[0, :5] = False
    return View(ids, mask, rows, rows)


def draw(model, **options):
    generator = torch.Generator().manual_seed(5)
    return output_gradients(model, LAYERS, view(), generator, **options)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2"])
def test_they_are_those_of_the_sampled_tokens_log_probability(architecture, monkeypatch):
    options = {"final_logit_softcapping": 5.0} if architecture == "gemma3" else {}
    model = tiny.model(architecture, seed=4, **options)
    sampled = []
    search = torch.searchsorted

    def recorded(*args, **kwargs):
        sampled.append(search(*args, **kwargs))
        return sampled[-1]

    monkeypatch.setattr(torch, "searchsorted", recorded)
    states, found = draw(model)
    ids, mask, rows = view().input_ids, view().attention_mask, view().rows
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(
        input_ids=ids, attention_mask=mask, position_ids=positions, output_hidden_states=True
    )
    log_q = output.logits[rows].log_softmax(dim=1)
    total = log_q.gather(1, torch.cat(sampled)).sum()
    for layer in LAYERS:
        (expected,) = torch.autograd.grad(total, output.hidden_states[layer], retain_graph=True)
        torch.testing.assert_close(found[layer], expected[rows], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            states[layer], output.hidden_states[layer][rows], atol=1e-5, rtol=1e-4
        )


def test_chunks_of_rows_do_not_matter(monkeypatch):
    model = tiny.model(seed=4)
    _, whole = draw(model)
    monkeypatch.setattr(gradients, "chunks", lambda n, _: [slice(i, i + 2) for i in range(0, n, 2)])
    _, parts = draw(model)
    for layer in LAYERS:
        torch.testing.assert_close(parts[layer], whole[layer])


def test_a_frozen_teacher_has_them_and_keeps_no_hook():
    model = tiny.model(seed=4).requires_grad_(False)
    _, found = draw(model)
    assert all(gradient.abs().sum() > 0 for gradient in found.values())
    assert not model.get_input_embeddings()._forward_hooks
    fitter = BridgeFitter([(1, 1), (2, 3)], 32, 32)
    states, _ = draw(model)
    fitter.update({1: states[1], 2: states[3]}, states, teacher_gradients=found)
    assert fitter.solve(2, basis="fisher").rank == 2
