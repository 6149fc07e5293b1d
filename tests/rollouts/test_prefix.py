"""Which responses the teacher begins, and how the student goes on with them."""

import pytest
import torch

from oprd.rollouts.prefix import begun_by_teacher, cut, write_begun
from tests.training.runs import settings

END = 9


def begun(tmp_path, step=0, rows=8, process=0, processes=1, **options):
    batch = rows // options.get("rollouts_ahead", 1) * processes
    given = {"max_steps": 100, "per_device_train_batch_size": batch}
    args = settings(tmp_path, **{**given, **options})
    return begun_by_teacher(args, step, rows, process, processes)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.85, 1.0])
def test_the_share_is_met_over_steps_by_batches_of_any_size(tmp_path, share):
    for rows in (1, 3, 8):
        found = [b for s in range(40) for b in begun(tmp_path, s, rows, teacher_prefix=share)]
        assert abs(sum(found) - share * len(found)) <= 1


def test_a_share_that_changes_is_that_of_its_step(tmp_path):
    falling = {"from": 1, "to": 0, "steps": 4}
    counts = [sum(begun(tmp_path, step, teacher_prefix=falling)) for step in range(6)]
    assert counts == [8, 6, 4, 2, 0, 0]


@pytest.mark.parametrize("ahead", [1, 2])
def test_processes_begin_together_what_one_begins(tmp_path, ahead):
    options = {"teacher_prefix": 0.4, "rollouts_ahead": ahead, "updates_per_rollout": 2}
    for step in (0, 2 * ahead, 4 * ahead):
        one = begun(tmp_path, step, 8 * ahead, **options)
        parts = [begun(tmp_path, step, 4 * ahead, p, 2, **options) for p in (0, 1)]
        dealt = [
            flag
            for turn in range(ahead)
            for part in parts
            for flag in part[4 * turn : 4 * turn + 4]
        ]
        assert dealt == one


def test_processes_begin_together_what_one_begins_beside_prompts_that_are_asked_again(tmp_path):
    options = {"teacher_prefix": 0.3, "curriculum": "error"}
    for step in range(3):
        one = begun(tmp_path, step, 8, **options)
        parts = [begun(tmp_path, step, 4, p, 2, **options) for p in (0, 1)]
        # The usual ones of both, then those of both that are asked again.
        assert one == parts[0][:2] + parts[1][:2] + parts[0][2:] + parts[1][2:]


def writing(begun, beginnings, rest, **options):
    """What comes of it, and what the student was asked at a time."""
    asked = []

    def go_on(prompts, limit):
        asked.append((prompts, limit))
        return [(rest[:limit], torch.arange(min(limit, len(rest)))) for _ in prompts]

    prompts = [[n] for n in range(len(begun))]
    given = {"length": 2, "limit": 5, "ends": (END,), **options}
    found = write_begun(prompts, begun, lambda places, _: beginnings, go_on, **given)
    return found, asked


def test_the_student_goes_on_where_the_teacher_left_off_in_one_call():
    found, asked = writing([True, False], [[1, 2]], [3, 4, 5, 6, 7])
    assert asked == [([[0, 1, 2], [1]], 5)]
    assert [r.response_ids for r in found] == [[1, 2, 3, 4, 5], [3, 4, 5, 6, 7]]
    assert [r.by_teacher for r in found] == [2, 0]
    assert [r.prompt_ids for r in found] == [[0], [1]]
    # Of what the student wrote.
    assert [r.log_probs.tolist() for r in found] == [[0, 1, 2], [0, 1, 2, 3, 4]]


@pytest.mark.parametrize("beginning", [[END], [1, END], []])
def test_what_the_teacher_ended_is_not_gone_on_with(beginning):
    found, asked = writing([True, False], [beginning], [3, 4, 5, 6, 7])
    assert [prompts for prompts, _ in asked] == [[[1]]]
    assert (found[0].response_ids, found[0].by_teacher) == (beginning, len(beginning))


def test_the_teacher_alone_writes_where_no_length_is_given():
    found, asked = writing([True, True], [[1, 2, 3, 4, 5], [1, END]], [7], length=None)
    assert not asked
    assert [r.response_ids for r in found] == [[1, 2, 3, 4, 5], [1, END]]
    assert [r.by_teacher for r in found] == [5, 2]


def test_where_all_are_begun_the_student_writes_the_rest_alone():
    _, asked = writing([True, True], [[1, 2], [3, 4]], [5] * 5)
    assert asked == [([[0, 1, 2], [1, 3, 4]], 3)]


def test_nothing_is_written_beyond_what_the_student_reads():
    _, asked = writing([True, False], [[1, 2]], [3] * 5, context=6)
    assert asked == [([[1]], 5), ([[0, 1, 2]], 3)]
    assert all(len(prompts[0]) + limit <= 6 for prompts, limit in asked)


def test_a_response_ends_with_its_first_end_token():
    assert cut([1, END, 2, END], (END,)) == [1, END]
    assert cut([1, 2], (END,)) == [1, 2]
