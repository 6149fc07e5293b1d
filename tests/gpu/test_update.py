"""What an update takes of the device: its memory, and how often the host waits for it."""

import pytest

from oprd.analysis.memory import transient_bytes
from oprd.analysis.setup import Models, Scene, Setup
from oprd.analysis.syncs import ELSEWHERE, host_syncs
from oprd.analysis.updates import all_objectives
from tests.gpu.device import DEVICE, of_cuda_alone, on_the_device

pytestmark = on_the_device

SIZES = {
    "shape": "qwen2.5-0.5b",
    "layers_count": 4,
    "vocab_size": 1024,
    "batch_size": 2,
    "prompt_length": 32,
    "response_length": 224,
    "dtype": "bfloat16",
    "device": DEVICE.type,
}


def updates(*names: str, **sizes):
    """An update of each objective on the same scene, each run once."""
    setup = Setup(**{**SIZES, **sizes})
    scene = Scene(setup, Models(setup))
    found = {name: all_objectives()[name].prepare(scene) for name in names}
    for run in found.values():
        run()
    return found


@pytest.mark.parametrize("objective", ["oprd", "oprd_prefix", "oprd_bridge", "topk", "trl"])
def test_an_update_runs_on_the_device(objective):
    # Half precision has no fast arithmetic on most CPUs.
    dtype = "float32" if DEVICE.type == "cpu" else "bfloat16"
    updates(objective, layers_count=2, response_length=16, vocab_size=300, dtype=dtype)


@of_cuda_alone
def test_transient_memory_is_within_five_percent_of_the_floors():
    found = updates("floor", "oprd", "oprd_window", response_length=992, layers_count=24)
    taken = {name: transient_bytes(run, DEVICE) for name, run in found.items()}
    assert taken["oprd"] <= 1.05 * taken["floor"]
    assert taken["oprd_window"] <= 1.05 * taken["floor"]


@of_cuda_alone
@pytest.mark.parametrize("objective", ["oprd", "oprd_window", "oprd_bridge", "reverse_kl"])
def test_the_host_waits_no_more_often_for_more_layers_or_tokens(objective):
    small = host_syncs(updates(objective)[objective])
    large = host_syncs(updates(objective, layers_count=8, response_length=480)[objective])
    ours = [{k: n for k, n in one.items() if k != ELSEWHERE} for one in (small, large)]
    assert ours[0] == ours[1]
