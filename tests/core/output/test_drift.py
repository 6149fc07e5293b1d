import pytest
import torch

from oprd.core.output.drift import drift, token_log_probs
from oprd.core.output.head import LMHead


def case(seed=0, rows=3, tokens=5, width=8, vocab=40):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, tokens, width, generator=generator, dtype=torch.float64)
    head = torch.randn(vocab, width, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, tokens, generator=generator) < 0.6
    ids = torch.randint(0, vocab, (rows, tokens), generator=generator)
    return hidden, head, mask, ids


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_log_probabilities_are_those_of_the_softmax_at_the_masks_tokens(temperature):
    hidden, weight, mask, ids = case()
    head = LMHead(weight, scale=1.5, softcap=3.0)
    found = token_log_probs(hidden, head, mask, ids, temperature=temperature)
    logits = 3.0 * torch.tanh(hidden @ weight.T * 1.5 / 3.0) / temperature
    expected = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0][mask]
    torch.testing.assert_close(found, expected)


def test_the_masks_rows_alone_serve_as_well():
    hidden, weight, mask, ids = case()
    found = token_log_probs(hidden[mask], weight, mask, ids)
    assert torch.equal(found, token_log_probs(hidden, weight, mask, ids))


def test_nothing_selected_gives_no_log_probability_and_no_drift():
    hidden, weight, mask, ids = case()
    found = token_log_probs(hidden, weight, torch.zeros_like(mask), ids)
    assert found.shape == (0,)
    assert drift(found, found) == (0, 0)


def test_the_estimate_is_the_kl_divergence_on_average_over_the_old_students_tokens():
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn(2, 10, generator=generator, dtype=torch.float64).log_softmax(-1)
    tokens = torch.multinomial(old.exp(), 200_000, replacement=True, generator=generator)
    total, count = drift(old[tokens], new[tokens])
    exact = (old.exp() * (old - new)).sum()
    assert (total / count).item() == pytest.approx(exact.item(), rel=0.03)


def test_the_estimate_is_never_negative_and_zero_without_a_move():
    written = torch.tensor([-1.0, -2.0, -3.0])
    assert drift(written, written).total == 0
    for change in (-0.5, 0.5):
        assert drift(written, written + change).total > 0


def test_a_small_move_is_not_lost_to_rounding():
    for change in (-1e-4, 1e-4):
        total, _ = drift(torch.zeros(1000), torch.full((1000,), change))
        assert total.item() == pytest.approx(1000 * change**2 / 2, rel=1e-2)


def test_other_tokens_than_those_written_are_refused():
    with pytest.raises(ValueError, match="2 tokens and of 3"):
        drift(torch.zeros(2), torch.zeros(3))
