import pytest
import torch

from lab.readings import read_states, write_rollouts
from tests.lab.theory import models, rollouts


def test_states_are_those_that_predict_the_response_tokens():
    pair = models()
    batch = rollouts(pair)
    states = read_states(pair.teacher, batch)
    row = 0
    for ids, mask, response in zip(
        batch.view.input_ids, batch.view.attention_mask, batch.response, strict=True
    ):
        own = ids[mask.bool()]
        length = int(response.sum())
        with torch.no_grad():
            hidden = pair.teacher(own[None], output_hidden_states=True).hidden_states
        for layer, found in states.items():
            expected = hidden[layer][0, -length - 1 : -1]
            torch.testing.assert_close(found[row : row + length], expected, rtol=1e-4, atol=1e-5)
        row += length
    assert row == len(states[1]) == int(batch.response.sum())


def test_the_seed_decides_the_rollouts_and_the_prompts_are_kept():
    pair = models()

    def write(seed):
        return write_rollouts(pair.student, pair.tokenizer, ["a", "1+2="], 6, seed)

    assert torch.equal(write(0).view.input_ids, write(0).view.input_ids)
    assert not torch.equal(write(0).response_ids, write(1).response_ids)
    batch = write(0)
    width = batch.view.input_ids.shape[1] - batch.response_ids.shape[1]
    assert batch.view.attention_mask[:, :width].sum(dim=1).tolist() == [1, 4]
    assert float(batch.response_count) == pytest.approx(2)
