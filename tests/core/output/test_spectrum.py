import pytest
import torch

from oprd.core.output import spectrum as module
from oprd.core.output.spectrum import head_spectrum

GENERATOR = torch.Generator().manual_seed(0)
WIDE, TALL = (torch.randn(*shape, generator=GENERATOR) for shape in ((5, 8), (40, 8)))


@pytest.mark.parametrize("weight", [WIDE, TALL])
def test_the_spectrum_is_that_of_the_centred_head(weight):
    spectrum = head_spectrum(weight)
    centred = weight.double() - weight.double().mean(dim=0)
    directions = spectrum.directions
    torch.testing.assert_close((centred @ directions.T).norm(dim=0), spectrum.values)
    torch.testing.assert_close(directions @ directions.T, torch.eye(8).double())
    # Five tokens leave four directions once a shift of all logits is taken out.
    assert spectrum.rank == min(len(weight) - 1, 8)
    expected = torch.linalg.svdvals(centred)
    assert spectrum.condition == pytest.approx(float(expected[0] / expected[spectrum.rank - 1]))


def test_a_shift_of_all_logits_is_not_seen():
    shifted = WIDE + torch.randn(8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        head_spectrum(shifted).values, head_spectrum(WIDE).values, rtol=1e-5, atol=1e-5
    )


def test_a_scale_of_the_state_belongs_to_the_head():
    scale = torch.linspace(-1, 2, 8)
    torch.testing.assert_close(
        head_spectrum(TALL, scale).values, head_spectrum(TALL * scale).values, rtol=1e-5, atol=1e-5
    )


def test_a_long_head_is_read_some_tokens_at_a_time(monkeypatch):
    whole = head_spectrum(TALL)
    monkeypatch.setattr(module, "BLOCK_TOKENS", 7)
    torch.testing.assert_close(head_spectrum(TALL).values, whole.values)


def test_weights_in_half_precision_are_read_in_float64():
    half = TALL.bfloat16()
    assert torch.equal(head_spectrum(half).values, head_spectrum(half.double()).values)
