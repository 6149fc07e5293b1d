"""Which rollouts a micro-step is about, and which update on them."""

import pytest

from oprd.rollouts.ahead import Window, WrittenAhead
from oprd.rollouts.written import Rollout


def test_uses_are_counted_in_micro_steps_of_all_updates_on_the_same_rollouts():
    window = Window(accumulation=2, updates=3)
    assert [window.use(step) for step in range(8)] == [0, 0, 1, 1, 2, 2, 0, 0]
    assert [window.is_last_use(step) for step in range(6)] == [False] * 4 + [True] * 2
    measured = [window.measures_drift(step) for step in range(6)]
    assert measured == [True] * 2 + [False] * 2 + [True] * 2
    assert not Window().measures_drift(0)


def measured(window: Window, **known: bool) -> list[int]:
    return [step for step in range(12) if window.measures_drift(step, **known)]


def test_what_was_written_ahead_is_measured_before_others_are_written():
    assert measured(Window(ahead=3)) == []
    assert measured(Window(ahead=3), recorded=True) == [2, 5, 8, 11]
    assert measured(Window(accumulation=2, ahead=3), recorded=True) == [4, 5, 10, 11]
    # Of several updates the last one; the first one only where nothing is known before.
    assert measured(Window(updates=3, ahead=2), recorded=True) == [2, 5, 8, 11]
    assert measured(Window(updates=3, ahead=2)) == [0, 2, 3, 5, 6, 8, 9, 11]


def test_with_rollouts_of_earlier_steps_every_first_update_is_measured():
    assert measured(Window(updates=2), replays=True) == list(range(12))
    assert measured(Window(updates=3), replays=True) == [0, 2, 3, 5, 6, 8, 9, 11]
    assert measured(Window(), replays=True) == list(range(12))


def test_each_step_has_its_part_of_what_is_written_at_once():
    window = Window(accumulation=2, updates=2, ahead=3)
    assert window.micro_steps == 12
    rows = list("aabbcc")
    turns = ["".join(window.turn(rows, step)) for step in range(24)]
    assert turns == (["aa"] * 4 + ["bb"] * 4 + ["cc"] * 4) * 2
    assert [step for step in range(24) if window.writes_ahead(step)] == [0, 12]
    assert not any(Window(2, 2).writes_ahead(step) for step in range(8))


def waiting(*tokens: int) -> WrittenAhead:
    ahead = WrittenAhead()
    ahead.keep([Rollout([token], [token + 4]) for token in tokens])
    return ahead


def test_what_was_written_ahead_is_given_out_in_order_and_once():
    ahead = waiting(1, 2, 3)
    given = [[rollout.response_ids for rollout in ahead.take(a)] for a in ([[1], [2]], [[3]])]
    assert given == [[[5], [6]], [[7]]]


@pytest.mark.parametrize("asked", [[[2]], [[1], [3]], [[1], [2], [3]]])
def test_what_was_written_for_other_prompts_is_refused(asked):
    with pytest.raises(RuntimeError, match="the 2 rollouts that were written ahead are for others"):
        waiting(1, 2).take(asked)
