import pytest
import torch

from lab.variants.consumed import select_consumed
from tests import tiny
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
        scale="none",
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
