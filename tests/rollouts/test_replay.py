"""Rollouts of earlier steps that are learned from again."""

import datetime

import pytest
import torch

from oprd.rollouts.replay import FILE, Replay, learn_drifts
from oprd.rollouts.written import Rollout, known_log_probs
from tests.training.runs import settings


def buffer(tmp_path, process=0, processes=1, **options):
    given = {"replay": 16, "per_device_train_batch_size": 8, "max_steps": 100, **options}
    return Replay(settings(tmp_path, **given), process, processes)


def written(step, rows):
    """Rollouts by whose only token one knows them."""
    return [Rollout([step], [10 * step + row]) for row in rows]


def mixed(replay, step, rows=range(4)):
    fresh = written(step, rows)
    found = replay.mix(fresh, [{"prompt": f"{step}, {row}"} for row in rows], step)
    return [rollout.response_ids[0] for rollout in found]


def gather(items):
    return items


def test_a_batch_is_filled_with_rollouts_of_earlier_steps_each_once(tmp_path):
    replay = buffer(tmp_path)
    for step in range(12):
        found = mixed(replay, step)
        assert len(found) == len(set(found)) == 4
        if step:
            assert all(10 * (step - 4) <= token < 10 * step for token in found)
            assert replay.drawn == 4


def test_a_group_draws_none_of_its_rollouts_twice(tmp_path):
    replay = buffer(tmp_path, replay=32, replay_share=0.75)
    found = [mixed(replay, step, range(2)) for step in range(12)]
    assert all(len(set(batch)) == 6 for batch in found[3:])


def test_what_is_drawn_is_now_younger_and_now_older(tmp_path):
    replay = buffer(tmp_path)
    drawn = [mixed(replay, step) for step in range(24)][4:]
    for slot in range(4):
        ages = {step - batch[slot] // 10 for step, batch in enumerate(drawn, 4)}
        assert ages == {1, 2, 3, 4}


def test_in_the_first_step_what_was_written_stands_in_the_batch_twice(tmp_path):
    replay = buffer(tmp_path)
    assert sorted(mixed(replay, 0)) == [0, 1, 2, 3]
    assert replay.drawn == 0


def test_the_buffer_holds_the_last_ones_and_no_more(tmp_path):
    replay = buffer(tmp_path, replay=9, replay_share=0.25)
    for step in range(5):
        mixed(replay, step, range(6))
    kept = [rollout.response_ids[0] for group in replay._groups for rollout in group]
    # Two groups of four each.
    assert len(kept) == 8 and min(kept) >= 30


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_processes_draw_together_what_one_draws(tmp_path, share):
    fresh = round(8 * (1 - share))
    one = buffer(tmp_path, replay_share=share)
    two = [buffer(tmp_path, process, 2, replay_share=share) for process in range(2)]
    for step in range(6):
        parts = [
            mixed(own, step, range(p * fresh // 2, (p + 1) * fresh // 2))
            for p, own in enumerate(two)
        ]
        assert sorted(parts[0] + parts[1]) == sorted(mixed(one, step, range(fresh)))


def test_processes_draw_together_what_one_draws_beside_prompts_that_are_asked_again(tmp_path):
    options = {"curriculum": "error", "per_device_train_batch_size": 16, "replay_share": 0.5}
    one = buffer(tmp_path, **options)
    two = [buffer(tmp_path, process, 2, **options) for process in range(2)]
    # Four in the usual order and four asked again, of which a process has two each.
    parts_of = [[*range(2 * p, 2 * p + 2), *range(2 * p + 4, 2 * p + 6)] for p in range(2)]
    for step in range(6):
        parts = [mixed(own, step, rows) for own, rows in zip(two, parts_of, strict=True)]
        assert sorted(parts[0] + parts[1]) == sorted(mixed(one, step, range(8)))


def test_what_is_drawn_is_a_matter_of_seed_and_step(tmp_path):
    def run(**options):
        replay = buffer(tmp_path, **options)
        return [mixed(replay, step) for step in range(8)]

    assert run() == run() != run(seed=7)


def test_one_that_the_student_has_left_behind_is_dropped(tmp_path):
    replay = buffer(tmp_path, max_drift_kl=0.1, replay_share=0.5)
    mixed(replay, 0)
    first, *others = [rollout for group in replay._groups for rollout in group]
    first.drift, others[0].drift = 0.2, 0.1
    found = mixed(replay, 1)
    assert first.response_ids[0] not in found and others[0].response_ids[0] in found
    assert (replay.drawn, replay.dropped) == (3, 1)


def test_empty_responses_are_not_kept(tmp_path):
    replay = buffer(tmp_path)
    replay.mix([Rollout([1], []) for _ in range(4)], [{}] * 4, 0)
    assert not any(replay._groups)


def test_the_first_update_says_what_the_writing_was_and_later_ones_the_drift():
    rollout = Rollout([1], [2, 3])
    first, later = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    learn_drifts([rollout], [first])
    assert rollout.log_probs is first and rollout.drift == 0
    learn_drifts([rollout], [later])
    change = later - first
    assert rollout.drift == pytest.approx((change.exp() - 1 - change).mean().item())
    assert rollout.log_probs is first
    begun = Rollout([1], [2, 3], by_teacher=2, log_probs=torch.zeros(0))
    learn_drifts([begun], [torch.zeros(0)])
    assert begun.drift == 0


def test_what_is_known_of_tokens_stands_at_their_places():
    rollouts = [
        Rollout([1], [2, 3, 4], by_teacher=1, log_probs=torch.tensor([-1.0, -2.0])),
        Rollout([1], [2]),
    ]
    found = known_log_probs(rollouts, 4)
    assert found.isnan().tolist() == [[True, False, False, True], [True] * 4]
    assert found[0, 1:3].tolist() == [-1, -2]


def filled(tmp_path, **options):
    replay = buffer(tmp_path, **options)
    for step in range(5):
        mixed(replay, step)
    for number, group in enumerate(replay._groups):
        for rollout in group[1:]:
            learn_drifts([rollout], [torch.tensor([-0.1 * number])])
            learn_drifts([rollout], [torch.tensor([-0.1 * number - 0.3])])
        group[-1].by_teacher = 1
    return replay


def test_a_buffer_goes_on_as_it_was(tmp_path):
    replay, other = filled(tmp_path), buffer(tmp_path)
    replay.save(tmp_path, gather, write=True)
    other.resume(tmp_path)
    for own, theirs in zip(replay._groups, other._groups, strict=True):
        for one, two in zip(own, theirs, strict=True):
            assert (one.prompt_ids, one.response_ids) == (two.prompt_ids, two.response_ids)
            assert (one.by_teacher, one.row, one.drift) == (two.by_teacher, two.row, two.drift)
            known = [own.log_probs is None for own in (one, two)]
            assert known[0] == known[1]
            assert known[0] or torch.equal(one.log_probs, two.log_probs)
    assert mixed(replay, 5) == mixed(other, 5)


def test_two_processes_go_on_with_the_buffer_of_one_and_one_with_that_of_two(tmp_path):
    filled(tmp_path).save(tmp_path, gather, write=True)
    one, two = buffer(tmp_path), [buffer(tmp_path, process, 2) for process in range(2)]
    for replay in (one, *two):
        replay.resume(tmp_path)

    def every(replays):
        return [r.response_ids for replay in replays for group in replay._groups for r in group]

    assert every(two) == every([one])
    parts = [(own._first + n, r) for own in two for n, g in enumerate(own._groups) for r in g]
    folder = tmp_path / "two"
    folder.mkdir()
    two[0].save(folder, lambda own: parts, write=True)
    two[1].save(folder, lambda own: parts, write=False)
    again = buffer(tmp_path)
    again.resume(folder)
    assert every([again]) == every([one])


def test_an_empty_buffer_is_saved_and_one_that_was_not_saved_begins_empty(tmp_path):
    replay = buffer(tmp_path)
    replay.save(tmp_path, gather, write=True)
    filled_one = filled(tmp_path)
    filled_one.resume(tmp_path)
    assert not any(filled_one._groups)
    (tmp_path / FILE).unlink()
    filled_one = filled(tmp_path)
    filled_one.resume(tmp_path)
    assert not any(filled_one._groups)


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=f"{FILE}' cannot be read .*: start anew"):
        buffer(tmp_path).resume(tmp_path)


def test_a_row_that_no_json_holds_is_refused_before_it_is_learned_from(tmp_path):
    rows = [{"prompt": "a", "date": datetime.date(2026, 1, 1)}] * 4
    with pytest.raises(ValueError, match="date is not JSON serializable: leave that column out"):
        buffer(tmp_path).mix(written(0, range(4)), rows, 0)
