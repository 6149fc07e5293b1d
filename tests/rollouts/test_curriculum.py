"""Prompts that come again sooner, the further the student is from its teacher on them."""

import pytest
import torch
from datasets import Dataset
from safetensors.torch import save_file

from oprd.rollouts.curriculum import FILE, NUMBER, Curriculum, Numbered
from tests.training.runs import settings

ROWS = [{"prompt": f"{n}"} for n in range(40)]


def made(tmp_path, process=0, processes=1, rows=ROWS, **options) -> Curriculum:
    given = {"curriculum": "error", "per_device_train_batch_size": 8, "max_steps": 100, **options}
    return Curriculum(settings(tmp_path, **given), rows, process, processes)


def of_prompts(tmp_path, numbers) -> Curriculum:
    """One about prompts that are told apart by their text."""
    prompts = {"prompt": [f"{n}" for n in numbers], "solution": [f"{n % 3}" for n in numbers]}
    return made(tmp_path, rows=Dataset.from_dict(prompts))


def met(curriculum, errors, gather=lambda own: own):
    """Let a batch of one token a sequence have these distances, by the numbers of its rows."""
    rows = [Numbered(ROWS)[number] for number in errors]
    places = torch.arange(len(rows))
    distances = torch.tensor(list(errors.values()))
    curriculum.meet(rows, places, torch.ones(len(rows), 1, dtype=torch.bool), distances)
    curriculum.learn(gather)


def asked(curriculum, step, loaded, **options):
    rows = [Numbered(ROWS)[number] for number in loaded]
    found = curriculum.extended(rows, step, begins=options.pop("begins", True))
    return [row[NUMBER] for row in found]


def test_rows_know_where_they_stand():
    numbered = Numbered(ROWS)
    assert len(numbered) == 40 and numbered[3] == {"prompt": "3", NUMBER: 3}


def test_a_part_comes_in_the_usual_order_and_the_others_by_their_distance(tmp_path):
    curriculum = made(tmp_path)
    met(curriculum, {n: (1.0 if n < 4 else 1e-9) for n in range(20)})
    for step in range(1, 6):
        found = asked(curriculum, step, range(20, 24))
        assert found[:4] == [20, 21, 22, 23]
        assert sorted(found[4:]) == [0, 1, 2, 3]
    assert curriculum.ratio == pytest.approx(5, rel=1e-3)


def test_prompts_are_drawn_as_likely_as_their_distances_say(tmp_path):
    # One of eight is drawn a step.
    curriculum = made(tmp_path, curriculum_floor=0.875, max_steps=5000)
    errors = {0: 1.0, 1: 2.0, 2: 5.0}
    met(curriculum, errors)
    drawn = torch.tensor([asked(curriculum, step, range(3, 10))[-1] for step in range(4000)])
    shares = torch.bincount(drawn, minlength=3) / len(drawn)
    torch.testing.assert_close(shares, torch.tensor([1, 2, 5]) / 8, atol=0.03, rtol=0)


def test_a_distance_is_that_of_the_last_rollouts(tmp_path):
    curriculum = made(tmp_path)
    met(curriculum, {n: (1.0 if n < 4 else 1e-9) for n in range(8)})
    met(curriculum, {n: (1.0 if n >= 4 else 1e-9) for n in range(8)})
    assert sorted(asked(curriculum, 1, range(20, 24))[4:]) == [4, 5, 6, 7]


def test_a_prompt_with_several_rollouts_has_their_mean(tmp_path):
    curriculum = made(tmp_path)
    rows = [Numbered(ROWS)[number] for number in (3, 5, 3, 7)]
    positions = torch.tensor([[1, 1], [1, 0], [1, 0], [0, 0]]).bool()
    # Of the sequences in another order.
    places = torch.tensor([2, 0, 1, 3])
    curriculum.meet(rows, places, positions, torch.tensor([1.0, 3.0, 4.0, 8.0]))
    curriculum.learn(lambda own: own)
    assert curriculum._errors[[3, 5]].tolist() == [(2 + 4) / 2, 8]
    # One without a supervised position says nothing.
    assert curriculum._errors.isnan().sum() == 38


def test_until_enough_were_met_prompts_of_the_step_are_asked_twice(tmp_path):
    curriculum = made(tmp_path)
    assert asked(curriculum, 0, [5, 6, 7, 8]) == [5, 6, 7, 8, 5, 6, 7, 8]
    met(curriculum, {1: 1.0})
    assert asked(curriculum, 1, [5, 6, 7, 8]) == [5, 6, 7, 8, 1, 6, 7, 8]


def test_several_rollouts_of_a_prompt_stand_together(tmp_path):
    curriculum = made(tmp_path, rollouts_per_prompt=2)
    met(curriculum, dict.fromkeys(range(20), 1.0))
    found = asked(curriculum, 1, [30, 30, 31, 31])
    assert found[4] == found[5] != found[6] == found[7]


@pytest.mark.parametrize("ahead", [1, 2])
def test_processes_ask_together_what_one_asks(tmp_path, ahead):
    def every(count, step, known):
        options = {"rollouts_ahead": ahead, "max_steps": 100}
        parts = [made(tmp_path, p, count, **options) for p in range(count)]
        loaded = list(range(4 * ahead))
        turns = [[] for _ in range(ahead)]
        for process, curriculum in enumerate(parts):
            met(curriculum, {n: 1.0 + n for n in range(known)})
            share = 4 // count
            own = [
                number
                for turn in range(ahead)
                for number in loaded[4 * turn + share * process : 4 * turn + share * (process + 1)]
            ]
            found = asked(curriculum, step, own)
            size = len(found) // ahead
            for turn in range(ahead):
                turns[turn] += found[size * turn : size * (turn + 1)]
        return [sorted(turn) for turn in turns]

    for known in (0, 3, 30):
        for step in range(4):
            assert every(1, step, known) == every(2, step, known)


def test_what_was_drawn_stays_until_others_are_written(tmp_path):
    curriculum = made(tmp_path)
    met(curriculum, dict.fromkeys(range(30), 1.0))
    first = asked(curriculum, 1, range(4))
    met(curriculum, dict.fromkeys(range(30), 1.0))
    assert asked(curriculum, 2, range(4), begins=False) == first
    assert asked(curriculum, 2, range(4)) != first


def test_it_goes_on_as_it_was(tmp_path):
    curriculum, other = made(tmp_path), made(tmp_path)
    met(curriculum, {n: 0.1 + n for n in range(20)})
    curriculum.save(tmp_path, write=True)
    other.resume(tmp_path)
    assert torch.equal(curriculum._errors.nan_to_num(), other._errors.nan_to_num())
    assert asked(curriculum, 7, range(4)) == asked(other, 7, range(4))
    assert curriculum.bytes <= (tmp_path / FILE).stat().st_size < curriculum.bytes + 1000


def test_one_process_writes_the_file(tmp_path):
    made(tmp_path).save(tmp_path, write=False)
    assert not (tmp_path / FILE).exists()


def test_of_other_prompts_or_without_a_file_it_begins_anew(tmp_path, caplog):
    curriculum = made(tmp_path)
    met(curriculum, {1: 1.0})
    curriculum.resume(tmp_path)
    assert curriculum._errors.isnan().all() and f"holds no {FILE}" in caplog.text
    shorter = Curriculum(curriculum._args, ROWS[:10], 0, 1)
    shorter.save(tmp_path, write=True)
    curriculum.resume(tmp_path)
    assert curriculum._errors.isnan().all() and "about 10 prompts, and there are 40" in caplog.text


def test_of_as_many_other_prompts_it_begins_anew_and_of_the_same_ones_it_goes_on(tmp_path, caplog):
    first = of_prompts(tmp_path, range(40))
    met(first, {1: 1.0})
    first.save(tmp_path, write=True)
    for others in (range(1, 41), range(39, -1, -1)):
        other = of_prompts(tmp_path, others)
        other.resume(tmp_path)
        assert other._errors.isnan().all() and "is about other prompts" in caplog.text
        caplog.clear()
    same = of_prompts(tmp_path, range(40))
    same.resume(tmp_path)
    assert torch.equal(same._errors.nan_to_num(), first._errors.nan_to_num()) and not caplog.text


def test_a_file_that_does_not_say_of_which_prompts_it_is_about_is_gone_on_with(tmp_path, caplog):
    errors = torch.arange(40, dtype=torch.float64)
    save_file({"errors": errors}, tmp_path / FILE)
    for curriculum in (made(tmp_path), of_prompts(tmp_path, range(40))):
        curriculum.resume(tmp_path)
        assert torch.equal(curriculum._errors, errors) and not caplog.text


def test_rollouts_of_prompts_that_are_no_longer_there_say_nothing_of_others(tmp_path):
    """As they come out of a replay buffer, of a run that went on with other prompts."""
    before, now = of_prompts(tmp_path, range(40)), of_prompts(tmp_path, [*range(9), *range(20, 31)])
    # Prompt 9 gave way to prompt 20, prompt 25 stands elsewhere, and prompt 39 has no place.
    rows = [before._rows[number] for number in (3, 9, 25, 39)]
    # Of a run without a curriculum.
    rows.append({"prompt": "4"})
    positions = torch.ones(len(rows), 1, dtype=torch.bool)
    now.meet(rows, torch.arange(len(rows)), positions, torch.ones(len(rows)))
    now.learn(lambda own: own)
    assert (~now._errors.isnan()).nonzero()[:, 0].tolist() == [3]


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=f"{FILE}' cannot be read .*: start anew"):
        made(tmp_path).resume(tmp_path)
