"""Captured states on the device are those that the model returns, with their gradients."""

import pytest
import torch

from oprd.core.capture import capture_states
from oprd.models.reading import base_forward
from tests import tiny
from tests.gpu.device import DEVICE, on_the_device

pytestmark = on_the_device


@pytest.mark.parametrize("checkpointing", [None, False, True], ids=["none", "plain", "reentrant"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3"])
def test_rows_and_gradients_are_those_of_hidden_states(architecture, dtype, checkpointing):
    model = tiny.model(architecture).to(DEVICE, dtype).train()
    if checkpointing is not None:
        model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        model.enable_input_require_grads()
    ids, mask = (tensor.to(DEVICE) for tensor in tiny.batch((9, 14, 5)))
    rows = mask.bool().clone()
    rows[:, :3] = False

    def gradients(states):
        model.zero_grad()
        sum(state.float().square().mean() for state in states).backward()
        return {
            n: p.grad.float().clone() for n, p in model.named_parameters() if p.grad is not None
        }

    with capture_states(model, "all", rows) as found:
        base_forward(model, ids, mask)
    captured = gradients([found[layer] for layer in sorted(found)])
    own = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0),
        output_hidden_states=True,
        use_cache=False,
    ).hidden_states
    for layer, state in found.items():
        torch.testing.assert_close(state, own[layer][rows], rtol=1e-2, atol=1e-2)
    expected = gradients([own[layer][rows] for layer in sorted(found)])
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    assert captured.keys() == expected.keys()
    for name, gradient in expected.items():
        error = (captured[name] - gradient).norm() / gradient.norm().clamp(min=1e-6)
        assert error < tolerance, name
