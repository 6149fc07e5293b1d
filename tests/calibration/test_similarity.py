"""Similarity on rollouts is that of states read one rollout at a time."""

import pytest
import torch

from oprd.calibration import similarity
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import draw_rows, select_rows
from oprd.calibration.similarity import measure_similarity
from oprd.core.capture import num_layers
from tests import tiny
from tests.calibration.pairs import rollouts, student, teacher
from tests.calibration.test_fit import states
from tests.reference.similarity import debiased_cka


def measured(made=None, models=None, positions=("all", 1), **options):
    models = models or (student(), teacher())
    made = rollouts() if made is None else made
    return measure_similarity(*models, made, *positions, progress=False, **options)


def naive(made, models, positions=("all", 1)):
    """[L_S, L_T] from whole Gram matrices of Transformers' own hidden states."""
    sides = []
    for model in models:
        layers = range(1, num_layers(model) + 1)
        read = [
            (selection, states(model, selection.rollout, layers))
            for selection in select_rows(made, *positions)
        ]
        sides.append([torch.cat([found[n][s.positions] for s, found in read]) for n in layers])
    return torch.stack([torch.stack([debiased_cka(x, y) for y in sides[1]]) for x in sides[0]])


@pytest.mark.parametrize("positions", [("all", 1), ("last_k", 3), ("first_k", 2), ("last", 1)])
def test_every_layer_meets_every_layer_at_the_supervised_positions(positions):
    models, made = (student(), teacher()), rollouts(20)
    found = measured(made, models, positions, batch_size=3)
    assert (found.shape, found.dtype) == ((3, 4), torch.float64)
    torch.testing.assert_close(found, naive(made, models, positions), atol=2e-4, rtol=0)


def test_identical_models_are_alike_layer_by_layer():
    found = measured(models=(student(), student()))
    assert found.diagonal().tolist() == [1, 1, 1]
    assert (found.argmax(dim=1) == torch.arange(3)).all()


def test_it_is_what_a_record_can_hold():
    found = measured()
    assert found.tolist() == [[round(value, 4) for value in row] for row in found.tolist()]


def test_no_more_rollouts_and_rows_are_read_than_are_bounded(monkeypatch):
    read = []
    kept = similarity.rows_of

    def watched(model, view, layers):
        read.append(int(view.rows.sum()))
        return kept(model, view, layers)

    monkeypatch.setattr(similarity, "rows_of", watched)
    monkeypatch.setattr(similarity, "MAX_ROLLOUTS", 6)
    made = rollouts(20)
    first = measured(made[::-1])
    assert sum(read) == 2 * sum(len(rollout.completion_ids) for rollout in made[:6])
    assert torch.equal(first, measured(made[:6]))
    monkeypatch.setattr(similarity, "MAX_ROWS", 30)
    read.clear()
    drawn = measured(made)
    assert sum(read) == 2 * 30
    assert torch.equal(drawn, measured(made))
    assert not torch.equal(drawn, measured(made, seed=1))
    assert (drawn - first).abs().max() < 0.5


def test_rows_are_drawn_over_all_rollouts_each_as_likely_as_any_other():
    selections = select_rows([Rollout(n, "", [1], [2] * 10, "stop") for n in range(5)], "all", 1)
    assert draw_rows(selections, 50, 0) == selections
    counts = torch.zeros(5, 10)
    for seed in range(400):
        kept = draw_rows(selections, 7, seed)
        assert sum(selection.rows for selection in kept) == 7
        for selection in kept:
            counts[selection.rollout.prompt] += selection.positions
    assert (counts / 400 - 7 / 50).abs().max() < 0.08
    # Only what could be read is drawn, and what is left of it stays with its rollout.
    last = select_rows([Rollout(n, "", [1], [2] * 10, "stop") for n in range(5)], "last_k", 3)
    drawn = draw_rows(last, 4, 0)
    assert all(not selection.positions[:7].any() for selection in drawn)
    # What is drawn from is left as it was.
    assert [selection.rows for selection in last] == [3] * 5


def test_the_models_and_the_random_numbers_are_left_as_they_were():
    models = student().train(), teacher().train()
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    measured(models=models)
    assert torch.equal(torch.rand(2), expected)
    assert all(model.training for model in models)
    assert all(p.grad is None for model in models for p in model.parameters())


def test_dropout_has_no_part_in_it():
    noisy = tiny.model("llama", seed=1, attention_dropout=0.5).train()
    assert torch.equal(measured(models=(noisy, teacher())), measured())


def test_the_teacher_is_read_inside_its_own_context():
    model = student()

    class Other:
        def __enter__(self):
            model.base_model.layers[1].mlp.down_proj.weight.data.mul_(20)

        def __exit__(self, *_):
            model.base_model.layers[1].mlp.down_proj.weight.data.div_(20)

    found = measured(models=(model, model), teacher_active=Other)
    assert found[0, 0] == 1
    assert found[1, 1] < 0.999


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "has 0 supervised positions of 0 rollouts to go by, and a debiased estimate needs 4"),
        ([Rollout(0, "", [1], [], "stop")] * 3, "has 0 supervised positions of 3 rollouts"),
        (
            [Rollout(n, "", [1], [2], "stop") for n in range(3)],
            "has 3 supervised positions .* add prompts, or name pairs such as layer_pairing='1:1",
        ),
        # The same three tokens again and again.
        (
            [Rollout(n, "", [1], [2], "stop") for n in range(6)],
            "student layer 1 is the same vector in all 6 rows",
        ),
    ],
)
def test_too_little_to_go_by_is_refused_with_the_way_out(made, message):
    with pytest.raises(ValueError, match=message):
        measured(made)


def test_a_row_that_is_not_finite_is_named_with_its_prompt():
    broken = teacher()
    made = rollouts(12)
    token = made[6].completion_ids[2]
    made = [r for n, r in enumerate(made) if n == 6 or token not in r.prompt_ids + r.completion_ids]
    with torch.no_grad():
        broken.get_input_embeddings().weight[token] = float("nan")
    with pytest.raises(
        FloatingPointError,
        match=r"teacher layer 1 is not finite where it predicts response token \d of prompt 6 ",
    ):
        measured(made, (student(), broken))
