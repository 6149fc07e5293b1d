import pytest
import torch

from oprd.analysis.inspection import rows as module
from oprd.analysis.inspection.rows import DrawnRows, Plan, chosen_rows, read_once
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import batches
from tests import tiny
from tests.calibration import test_own_tokens as own
from tests.calibration.pairs import rollouts, student, teacher
from tests.calibration.test_fit import states


def read(models, plan, observers, size=5):
    done = []
    read_once(*models, batches(plan.read, size, 0, 1), observers, done.append)
    assert sum(done) == len(plan.read)


def test_drawn_rows_are_those_of_transformers_own_hidden_states():
    models, made = (student(), teacher()), rollouts()
    plan = Plan.of(made, "last_k", 3, seed=0)
    drawn = DrawnRows(plan.supervised, 10_000, seed=0)
    read(models, plan, [drawn])
    order = [selection for batch in batches(plan.read, 5, 0, 1) for selection in batch]
    masks = {selection.rollout.prompt: selection.positions for selection in plan.supervised}
    for model, found in zip(models, (drawn.student, drawn.teacher), strict=True):
        for layer, rows in found.items():
            naive = [
                states(model, selection.rollout, [layer])[layer][masks[selection.rollout.prompt]]
                for selection in order
            ]
            torch.testing.assert_close(rows, torch.cat(naive), atol=1e-5, rtol=1e-4)
    assert sorted(drawn.student) == [1, 2, 3] and sorted(drawn.teacher) == [1, 2, 3, 4]


def test_a_teacher_of_other_tokens_is_read_where_both_have_read_the_same():
    made, written = own.models(), own.rollouts()
    plan = Plan.of(written, "last_k", 3, 0, made.teach)
    met = [made.own.read(rollout.completion_ids).met() for rollout in written]
    assert plan.shared == pytest.approx(float(torch.cat(met).float().mean()))
    assert 0 < plan.shared < 1
    drawn = DrawnRows(plan.supervised, 10_000, seed=0)
    read((made.student, made.teacher), plan, [drawn])
    chosen = {selection.rollout.prompt: selection for selection in plan.supervised}
    order = [selection for batch in batches(plan.read, 5, 0, 1) for selection in batch]
    expected = [
        pair
        for selection in order
        if (of := chosen.get(selection.rollout.prompt))
        for pair in own.by_hand(made, of)
    ]
    for found, side in ((drawn.student, 0), (drawn.teacher, 1)):
        torch.testing.assert_close(found[2], torch.stack([pair[side] for pair in expected]))


def test_each_model_reads_each_rollout_once(monkeypatch):
    tokens = []
    kept = module.rows_of

    def watched(model, view, layers):
        tokens.append(int(view.attention_mask.sum()))
        return kept(model, view, layers)

    monkeypatch.setattr(module, "rows_of", watched)
    made = rollouts()
    plan = Plan.of(made, "first_k", 2, seed=0)
    read((student(), teacher()), plan, [])
    assert sum(tokens) == 2 * sum(len(r.prompt_ids) + len(r.completion_ids) for r in made)


def test_all_is_read_and_what_is_asked_for_is_supervised(monkeypatch):
    made = rollouts()
    plan = Plan.of(made, "last", 1, seed=0)
    total = sum(len(rollout.completion_ids) for rollout in made)
    assert sum(selection.rows for selection in plan.read) == total
    assert [selection.rows for selection in plan.supervised] == [1] * len(made)
    monkeypatch.setattr(module, "MAX_ROWS", 40)
    fewer = Plan.of(made, "all", 1, seed=0)
    assert sum(selection.rows for selection in fewer.read) == 40
    assert sum(selection.rows for selection in fewer.supervised) == 40


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        ([[], []], "0 of 2 rollouts have supervised positions, 0 in all"),
        ([[5] * 9, []], "1 of 2 rollouts have supervised positions, 9 in all"),
        ([[5], [6, 7]], "2 of 2 rollouts have supervised positions, 3 in all"),
    ],
)
def test_too_little_to_go_by_is_refused(responses, message):
    made = [Rollout(n, "p", [1], ids, "stop") for n, ids in enumerate(responses)]
    with pytest.raises(ValueError, match=message):
        Plan.of(made, "all", 1, seed=0)


def test_a_state_that_is_not_finite_names_its_prompt():
    broken = teacher()
    broken.base_model.layers[1].mlp.down_proj.weight.data.fill_(float("nan"))
    plan = Plan.of(rollouts(), "all", 1, seed=0)
    with pytest.raises(FloatingPointError, match=r"teacher layer 2 .* of prompt \d+ \('prompt"):
        read((student(), broken), plan, [])


def test_chosen_rows_skip_what_is_not_read_and_prompts_that_are_not_chosen():
    made = rollouts(3)
    plan = Plan.of(made, "all", 1, seed=0)
    chosen = {
        made[1].prompt: torch.arange(len(made[1].completion_ids)) == 2,
        99: torch.ones(3, dtype=torch.bool),
    }
    assert chosen_rows(plan.read, chosen).tolist() == [len(made[0].completion_ids) + 2]


def test_the_models_are_left_in_their_mode():
    models = tiny.model(seed=1).train(), teacher()
    read(models, Plan.of(rollouts(4), "all", 1, seed=0), [])
    assert models[0].training and not models[1].training
