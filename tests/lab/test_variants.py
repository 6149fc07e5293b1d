import pytest
import torch

from lab.variants import RandomDirection, select_consumed
from oprd.models.reader import Reader
from oprd.models.reading import View
from oprd.models.reference import Reference
from oprd.models.views import Views
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


def test_a_random_direction_leads_as_far_from_the_teacher_and_elsewhere():
    student, teacher, begun = (tiny.model(seed=seed) for seed in (1, 2, 3))
    views = Views((View.of_texts(torch.arange(12).reshape(2, 6)),))

    def states():
        return dict(Reader(teacher).read(student, views, [1, 3]).states)

    ahead = Reference(Reader(begun), 1.5).beyond(student, views, states())
    found = RandomDirection(Reader(begun), 1.5).beyond(student, views, states())
    for layer, rows in states().items():
        moved, straight = found[layer] - rows, ahead[layer] - rows
        torch.testing.assert_close(moved.norm(dim=1), straight.norm(dim=1))
        # Every row moves the same way, which is not where the reference points.
        torch.testing.assert_close(torch.cosine_similarity(moved, moved[:1]), torch.ones(len(rows)))
        assert torch.cosine_similarity(moved, straight).abs().max() < 0.9
