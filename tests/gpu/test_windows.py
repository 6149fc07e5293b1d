"""Windows behind a constant prefix, under every kind of attention that the device has."""

import importlib.util

import pytest
import torch

from oprd.models.reading import read
from oprd.models.windowed import read_windowed
from tests import tiny
from tests.gpu.device import DEVICE, of_cuda_alone, on_the_device
from tests.models.test_windowed import ragged

pytestmark = on_the_device

FLASH = pytest.mark.skipif(
    importlib.util.find_spec("flash_attn") is None, reason="flash_attn is not installed"
)
KINDS = [
    pytest.param("eager", torch.float32),
    pytest.param("sdpa", torch.float32),
    pytest.param("sdpa", torch.bfloat16),
    pytest.param("flash_attention_2", torch.bfloat16, marks=[of_cuda_alone, FLASH]),
]


@pytest.mark.parametrize(("attention", "dtype"), KINDS)
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_a_windows_states_are_those_of_the_whole_sequence(architecture, attention, dtype):
    wide = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32}
    model = tiny.model(architecture, **wide).to(DEVICE, dtype)
    model.set_attn_implementation(attention)
    view = ragged().to(DEVICE)
    layers = (1, 2, 3)
    with torch.no_grad():
        whole = read(model, view, layers).states
    windowed = read_windowed(model, view, layers, view.rows).states
    tolerance = 1e-4 if dtype == torch.float32 else 5e-2
    for layer in layers:
        error = (windowed[layer].float() - whole[layer].float()).norm(dim=1)
        assert (error / whole[layer].float().norm(dim=1)).max() < tolerance
    windowed[3].float().square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
