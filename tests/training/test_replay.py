"""Rollouts of earlier steps that are learned from again, in training runs."""

import json

import pytest
import torch
from datasets import Dataset

from oprd.rollouts.supervised import check_source
from tests import tiny
from tests.training import runs
from tests.training.runs import WRITING, check_goes_on_bit_identical, trainer, weights


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def batches(made):
    """The responses of each generation batch, as ids without padding."""
    found, supervise = [], made.rollouts.supervise

    def looking(output, *args):
        ids, mask = output["completion_ids"], output["completion_mask"].bool()
        found.append([i[m].tolist() for i, m in zip(ids, mask, strict=True)])
        return supervise(output, *args)

    made.rollouts.supervise = looking
    return found


def test_half_of_a_batch_is_written_and_half_was_written_before(tmp_path):
    prompts = [f"{n} and {n * n}?" for n in range(8)]
    made = trainer(tmp_path, prompts=prompts, replay=4, max_steps=4)
    asked, write = [], made._writer.write

    def counting(prompt_ids, *args):
        asked.append(len(prompt_ids))
        return write(prompt_ids, *args)

    made._writer.write = counting
    seen = batches(made)
    made.train()
    # Eight prompts are enough for four steps of four.
    assert asked == [2] * 4
    for step in range(1, 4):
        # The buffer of four holds what two steps wrote.
        before = [ids for batch in seen[max(step - 2, 0) : step] for ids in batch[:2]]
        assert all(ids in before for ids in seen[step][2:])
    logged = lines(tmp_path)
    assert [line["replay/ratio"] for line in logged if "replay/ratio" in line] == [0, 0.5, 0.5, 0.5]


def test_the_drift_of_what_is_drawn_is_that_since_it_was_written(tmp_path):
    prompts = runs.PROMPTS[:2] * 2
    student = tiny.model(seed=1)
    before = {name: t.clone() for name, t in student.state_dict().items()}
    made = trainer(
        tmp_path, student=student, prompts=prompts[:4], replay=4, max_steps=2, temperature=0.7
    )
    states, step = [before], made.training_step

    def keeping(*args, **options):
        states.append({name: t.clone() for name, t in student.state_dict().items()})
        return step(*args, **options)

    made.training_step = keeping
    seen = batches(made)
    made.train()
    written = [rollout for group in made.rollouts.origins.replay._groups for rollout in group]
    drawn = seen[1][2:]
    changes = []
    for rollout in written:
        if rollout.response_ids not in drawn or not rollout.drift:
            continue
        log_probs = []
        for state in (states[1], states[2]):
            student.load_state_dict(state)
            ids = rollout.prompt_ids + rollout.response_ids
            with torch.no_grad():
                logits = student(torch.tensor([ids])).logits[0, len(rollout.prompt_ids) - 1 : -1]
            target = torch.tensor(rollout.response_ids)[:, None]
            log_probs.append((logits / 0.7).log_softmax(-1).gather(1, target)[:, 0])
        change = log_probs[1] - log_probs[0]
        changes.append(change.exp() - 1 - change)
        assert rollout.drift == pytest.approx(changes[-1].mean().item(), rel=1e-3)
    assert len(changes) == 2
    logged = {line["step"]: line["drift_kl"] for line in lines(tmp_path) if "drift_kl" in line}
    assert logged == {2: pytest.approx(torch.cat(changes).mean().item(), rel=1e-3)}


def test_what_the_student_has_left_behind_is_not_learned_from_again(tmp_path):
    options = {"replay": 8, "max_steps": 4, "prompts": runs.PROMPTS}
    free = trainer(tmp_path / "free", **options)
    free.train()
    held = trainer(tmp_path / "held", max_drift_kl=1e-9, **options)
    seen = batches(held)
    held.train()
    dropped = [line["replay/dropped"] for line in lines(tmp_path / "held") if "loss" in line]
    assert sum(dropped) > 0
    # Each is drawn once at most: what was drawn had drifted.
    drawn = [tuple(ids) for batch in seen[1:] for ids in batch[2:]]
    again = [ids for ids in drawn if ids not in {tuple(i) for b in seen for i in b[:2]}]
    assert not again
    assert not any(
        line["replay/dropped"] for line in lines(tmp_path / "free") if "replay/dropped" in line
    )


@pytest.mark.parametrize(
    "options",
    [
        {"replay": 8},
        {"replay": 8, "max_drift_kl": 1e-4, "updates_per_rollout": 2},
        {"replay": 12, "replay_share": 0.25, "rollouts_ahead": 2},
        {"replay": 8, "teacher_prefix": 0.5, "teacher_prefix_length": 3},
    ],
)
def test_a_resumed_run_ends_bit_identical(tmp_path, options):
    check_goes_on_bit_identical(tmp_path, **options)


@pytest.mark.parametrize("second", [[65, 66, tiny.EOS], []], ids=["one empty", "all empty"])
def test_an_empty_response_stands_empty_where_it_is_drawn_again(tmp_path, second):
    """In the first step all that is drawn was written for it, the empty one among them."""
    responses = iter([[], second])
    made = trainer(
        tmp_path,
        prompts=runs.PROMPTS[:4],
        rollout=lambda _: next(responses),
        replay=8,
        max_steps=1,
    )
    seen = []
    supervise = made.rollouts.supervise

    def looking(output, *args):
        metrics = supervise(output, *args)
        seen.append(output["completion_mask"].any(dim=1).tolist())
        return metrics

    made.rollouts.supervise = looking
    made.train()
    (written,) = seen
    assert written == [False, bool(second)] * 2
    (ratio,) = [line["completions/empty_ratio"] for line in lines(tmp_path) if "loss" in line]
    assert ratio == (0.5 if second else 1)


def test_accumulation_makes_no_difference(tmp_path):
    students = []
    for accumulation in (1, 2):
        made = trainer(
            tmp_path / str(accumulation),
            replay=8,
            max_steps=4,
            per_device_train_batch_size=4 // accumulation,
            gradient_accumulation_steps=accumulation,
        )
        made.train()
        students.append(weights(made.model))
    assert runs.largest_difference(*students) < 1e-5


def test_a_teacher_with_own_prompts_reads_those_of_what_is_drawn(tmp_path):
    hints = [f"know {n}: {p}" for n, p in enumerate(runs.PROMPTS)]
    made = trainer(tmp_path, columns={"teacher_prompt": hints}, replay=4, max_steps=3)
    asked, batch = [], made._team.first.prompts.batch

    def looking(rows, *args):
        asked.append([row["prompt"] for row in rows])
        return batch(rows, *args)

    made._team.first.prompts.batch = looking
    made.train()
    assert all(len(rows) == 4 for rows in asked)
    assert sorted(asked[1][2:]) == sorted(asked[0][:2])


def test_a_found_rate_leaves_nothing_in_the_buffer(tmp_path):
    made = trainer(tmp_path, replay=4, max_steps=1, **{**WRITING, "learning_rate": "auto"})
    made.train()
    kept = [rollout for group in made.rollouts.origins.replay._groups for rollout in group]
    assert len(kept) <= 2


def test_a_run_that_trains_twice_begins_with_an_empty_buffer(tmp_path):
    made = trainer(tmp_path, replay=4, max_steps=2)
    for _ in range(2):
        made.train()
    ratios = [line["replay/ratio"] for line in lines(tmp_path) if "replay/ratio" in line]
    assert ratios[-2:] == [0, 0.5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"replay": 3}, "replay=3 keeps fewer rollouts than the 4 of a step: raise it"),
        ({"replay": -1}, "replay must be a whole number of at least 0"),
        ({"max_drift_kl": 0.1}, "max_drift_kl=0.1 has no effect without replay"),
        ({"replay": 8, "max_drift_kl": 0}, "max_drift_kl must be above 0"),
        ({"replay": 8, "replay_share": 1}, "replay_share must be above 0 and below 1"),
        ({"replay": 8, "replay_share": 0.1}, "replay_share=0.1 of the 4 rollouts of a step leaves"),
        (
            {"replay": 8, "replay_share": 0.25, "rollouts_per_prompt": 2},
            "leaves 3 to be written, which must be a multiple",
        ),
        (
            {"replay": 8, "output_loss": "sampled"},
            "output_loss='sampled' is the gradient of the student that wrote the rollouts, and "
            "those of replay were drawn from another distribution",
        ),
        (
            {"replay": 8, "teachers": '[{"name": "a"}, {"name": "b"}]'},
            "replay draws rollouts of any teacher, and teacher_batches='pure'",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        runs.settings(tmp_path, **options)


def test_streams_pictures_and_tools_are_refused(tmp_path):
    args = runs.settings(tmp_path, replay=4)
    stream = Dataset.from_dict({"prompt": ["a"]}).to_iterable_dataset()
    with pytest.raises(ValueError, match="replay=4 needs a dataset with a length"):
        check_source(stream, args)
    with pytest.raises(ValueError, match=r"replay=4 .* tools answer in between: leave it out"):
        check_source(None, args, [print])
    with pytest.raises(ValueError, match=r"replay=4 .* the prompts have pictures: leave it out"):
        trainer(tmp_path, replay=4, columns={"image": [None] * 16})
