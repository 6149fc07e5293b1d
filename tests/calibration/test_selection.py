import pytest

from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import batches, hold_out, select_rows
from tests.calibration.pairs import rollouts


def rollout(number, length):
    return Rollout(number, "", [1], [2] * length, "stop")


def test_positions_are_those_of_training_and_empty_responses_give_none():
    found = select_rows([rollout(2, 3), rollout(0, 5), rollout(1, 0)], "last_k", 4)
    assert [selection.rollout.prompt for selection in found] == [0, 2]
    assert [selection.positions.tolist() for selection in found] == [
        [False, True, True, True, True],
        [True, True, True],
    ]


@pytest.mark.parametrize(
    ("max_rows", "expected"), [(4, [4]), (5, [4, 1]), (7, [4, 3]), (9, [4, 3])]
)
def test_rows_are_capped_in_the_order_of_the_prompts(max_rows, expected):
    found = select_rows([rollout(0, 4), rollout(1, 3)], "all", 1, max_rows)
    assert [selection.rows for selection in found] == expected


@pytest.mark.parametrize(("count", "held"), [(2, 1), (4, 1), (5, 1), (7, 2), (100, 20)])
def test_a_fifth_of_the_rollouts_is_held_out_and_none_is_on_both_sides(count, held):
    fit, held_out = hold_out(select_rows(rollouts(count), "all", 1))
    assert (len(fit), len(held_out)) == (count - held, held)
    numbers = [selection.rollout.prompt for selection in (*fit, *held_out)]
    assert sorted(numbers) == list(range(count))


def test_one_rollout_cannot_be_fitted_and_judged():
    with pytest.raises(ValueError, match=r"1 rollouts with supervised positions.*Add prompts"):
        hold_out(select_rows(rollouts(1), "all", 1))


def test_processes_share_all_readings_in_batches_of_similar_length():
    selections = select_rows(rollouts(11), "all", 1)
    shares = [batches(selections, 2, process, 3) for process in range(3)]
    assert all(len(batch) <= 2 for share in shares for batch in share)
    numbers = [
        selection.rollout.prompt for share in shares for batch in share for selection in batch
    ]
    assert sorted(numbers) == list(range(11))
    lengths = [selection.length for batch in shares[0] for selection in batch]
    assert lengths == sorted(lengths, reverse=True)
