"""Products in half precision, as a GPU makes them."""

import pytest
import torch

from oprd.core.output.head import LMHead, add_half_product, power_of_two

N, V, WIDTH = 6, 40, 8


@pytest.fixture
def matrix_units(monkeypatch):
    """What a GPU does with factors in half precision: it adds up their products in float32."""
    addmm = torch.addmm

    def added(onto, left, right, *, beta, out_dtype, out):
        assert left.dtype == right.dtype and out.dtype == out_dtype == torch.float32
        return addmm(onto, left.float(), right.float(), beta=beta, out=out)

    monkeypatch.setattr(torch, "addmm", added)


def factors(size, dtype):
    generator = torch.Generator().manual_seed(0)
    left, right = torch.randn(N, V, generator=generator), torch.randn(V, WIDTH, generator=generator)
    return left * size, right.to(dtype)


@pytest.mark.usefixtures("matrix_units")
@pytest.mark.parametrize("size", [1e-20, 1e-9, 1e-3, 1.0, 1e6])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_a_gradient_of_any_size_is_rounded_and_not_lost(size, dtype, error):
    left, right = factors(size, dtype)
    before = torch.full((N, WIDTH), size)
    found = before.clone()
    add_half_product(found, left, right)
    expected = before.double() + left.double() @ right.double()
    assert (found - expected).norm() < error * expected.norm()
    # Its size is not looked at from outside: nothing waits for the device.
    assert power_of_two(left).ndim == 0


@pytest.mark.usefixtures("matrix_units")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_no_gradient_adds_nothing_and_one_that_is_not_finite_stays_so(dtype):
    left, right = factors(0.0, dtype)
    found = torch.ones(N, WIDTH)
    add_half_product(found, left, right)
    assert torch.equal(found, torch.ones(N, WIDTH))
    for broken in (torch.nan, torch.inf):
        left[0, 0] = broken
        add_half_product(found, left, right)
        assert not found[0].isfinite().any()


@pytest.mark.usefixtures("matrix_units")
def test_states_that_are_in_half_precision_already_are_multiplied_as_they_are():
    left, right = factors(1e-3, torch.float16)
    left, found = left.half(), torch.empty(N, WIDTH)
    add_half_product(found, left, right, onto=0)
    assert torch.equal(found, left.float() @ right.float())


def test_a_head_goes_to_a_device_whole():
    head = LMHead(torch.ones(V, WIDTH), torch.ones(V), scale=2.0, softcap=3.0)
    moved = head.to(torch.device("meta"))
    assert moved.weight.is_meta and moved.bias is not None and moved.bias.is_meta
    assert (moved.scale, moved.softcap) == (2.0, 3.0)
    here = head.to(torch.device("cpu"))
    assert here.weight is head.weight
