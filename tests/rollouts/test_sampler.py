from oprd.rollouts.sampler import PromptSampler


def order(epoch: int, seed: int = 0, shuffle: bool = True) -> list[int]:
    return list(PromptSampler(range(20), 2, 5, 3, shuffle, seed, lambda: epoch))


def test_an_epoch_has_the_same_order_whatever_came_before():
    now = 0
    sampler = PromptSampler(range(20), 2, 5, 3, True, 0, lambda: now)
    first = list(sampler)
    now = 1
    second = list(sampler)
    assert first != second
    assert (first, second) == (order(0), order(1))


def test_an_epoch_of_one_seed_is_none_of_its_neighbours():
    assert order(1, seed=0) not in (order(0, seed=1), order(2, seed=0), order(0, seed=0))


def test_prompts_stand_in_whole_groups_and_batches_repeat():
    indices = order(0)
    assert len(indices) == 20 * 2 * 3
    assert indices[:10] == indices[10:20] == indices[20:30]
    assert indices[0:10:2] == indices[1:10:2]


def test_without_shuffling_the_order_is_that_of_the_data():
    assert order(3, shuffle=False)[:10] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_pure_batches_have_one_group_each_and_leave_out_what_fills_none():
    groups = ["a", "b", "b"] * 4 + ["c"]
    sampler = PromptSampler(range(13), 2, 3, 2, True, 0, lambda: 0, groups)
    indices = list(sampler)
    assert len(indices) == len(sampler) == 3 * 3 * 2 * 2
    batches = [indices[start : start + 6] for start in range(0, len(indices), 6)]
    assert all(len({groups[index] for index in batch}) == 1 for batch in batches)
    assert batches[0] == batches[1] and batches[0][0] == batches[0][1]
    assert sorted(groups[batch[0]] for batch in batches[::2]) == ["a", "b", "b"]
    again = PromptSampler(range(13), 2, 3, 2, True, 0, lambda: 1, groups)
    assert list(again) != indices


def test_steps_that_are_written_at_once_stand_together_and_are_those_of_one_by_one():
    def ahead(steps, **options):
        return PromptSampler(range(21), 2, 3, 1, True, 0, lambda: 0, ahead=steps, **options)

    one, two = list(ahead(1)), list(ahead(2))
    assert len(ahead(2)) == len(two) == 3 * 12 and two == one[:36]
    assert len(ahead(8)) == len(list(ahead(8))) == 0
    dealt = list(ahead(2, processes=3))
    for start in range(0, 36, 12):
        parts = [dealt[start + 4 * process :][:4] for process in range(3)]
        # Each process has two rollouts of the first step, then two of the second.
        assert [i for part in parts for i in part[:2]] == one[start : start + 6]
        assert [i for part in parts for i in part[2:]] == one[start + 6 : start + 12]
