"""Curves that part, as lines of a log."""

import random

import pytest

from oprd.runs.false_progress import Watch, separated

FIGURE, KL = "eval/additions/avg@4", "diagnostics/reverse_kl"
RISE, FALL = [0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]


def alarms(better, worse, *, aligned="rep_cosine", goal=FIGURE, window=4, figure=None, loss=True):
    """The numbers of the measurements that raise an alarm."""
    watch = Watch(window, figure, loss=loss)
    found = []
    for step, (one, other) in enumerate(zip(better, worse, strict=True)):
        watch.add(step, {aligned: one})
        if watch.add(step, {goal: other}) is not None:
            found.append(step)
    return found


@pytest.mark.parametrize(
    ("aligned", "better", "goal", "worse"),
    [
        ("rep_cosine", RISE, FIGURE, FALL),
        ("loss", FALL, FIGURE, FALL),
        ("loss/representation", FALL, KL, RISE),
        ("rep_cosine", RISE, KL, RISE),
    ],
)
def test_alignment_that_gets_better_while_a_goal_gets_worse_raises_an_alarm(
    aligned, better, goal, worse
):
    assert alarms(better, worse, aligned=aligned, goal=goal) == [3]
    # Either curve the other way round is no false progress.
    assert alarms(better[::-1], worse, aligned=aligned, goal=goal) == []
    assert alarms(better, worse[::-1], aligned=aligned, goal=goal) == []


def test_halves_are_compared_whatever_the_order_within_them():
    assert alarms([0.2, 0.1, 0.4, 0.3], [0.3, 0.4, 0.1, 0.2]) == [3]
    assert alarms([0.2, 0.1, 0.4, 0.3], [0.3, 0.4, 0.3, 0.2]) == []


def test_a_collapse_is_seen_when_it_stands_in_the_middle_of_the_window():
    figures = [0.5, 0.53, 0.51, 0.12, 0.13]
    assert alarms([0.1, 0.2, 0.3, 0.4, 0.5], figures) == [4]


def test_a_goal_that_goes_up_and_down_raises_none():
    assert alarms(range(20), [0.5, 0.4] * 10) == []
    assert alarms(range(20), [0.5] * 20) == []


@pytest.mark.parametrize(("half", "share"), [(2, 1 / 6), (4, 1 / 70)])
def test_by_chance_as_many_windows_are_separated_as_the_page_says(half, share):
    draw = random.Random(0)
    windows = [[draw.random() for _ in range(2 * half)] for _ in range(20_000)]
    found = sum(separated(window, -1) for window in windows) / len(windows)
    assert found == pytest.approx(share, rel=0.2)


def test_the_alarm_holds_both_curves():
    watch = Watch(4)
    for step in range(4):
        watch.add(10 * step, {"rep_cosine": RISE[step] - 0.05})
        watch.add(10 * step + 5, {"rep_cosine": RISE[step] + 0.05})
        alarm = watch.add(10 * step + 5, {FIGURE: FALL[step]})
    assert alarm.steps == [5, 15, 25, 35]
    assert (alarm.better, alarm.worse) == ("rep_cosine", FIGURE)
    # The mean of what was logged since the last measurement.
    assert alarm.better_values == pytest.approx(RISE)
    assert alarm.worse_values == FALL
    assert f"rep_cosine got better (0.1 0.2 0.3 0.4) while {FIGURE} got worse (0.4" in str(alarm)


def test_one_line_may_hold_both():
    watch = Watch(4)
    lines = [{"rep_cosine": a, KL: b} for a, b in zip(RISE, RISE, strict=True)]
    assert [watch.add(step, line) is not None for step, line in enumerate(lines)] == [False] * 3 + [
        True
    ]


def test_figures_of_before_the_first_step_and_of_no_training_between_are_left_out():
    watch = Watch(4)
    assert watch.add(0, {FIGURE: 1.0}) is None
    for step in range(3):
        watch.add(step, {"rep_cosine": RISE[step]})
        assert watch.add(step, {FIGURE: FALL[step]}) is None
        assert watch.add(step, {FIGURE: FALL[step]}) is None


def test_only_the_figure_that_was_asked_for_counts():
    assert alarms(RISE, FALL, figure="additions/avg@4") == [3]
    assert alarms(RISE, FALL, figure="additions/best@4") == []
    assert alarms(RISE, FALL, goal="eval/additions/best@4", figure="additions/best@4") == [3]
    assert alarms(RISE, RISE, goal=KL, figure="additions/best@4") == [3]
    assert alarms(RISE, FALL, goal="eval/additions/avg@4/low") == []
    assert alarms(RISE, FALL, goal="eval_loss") == []


def test_a_loss_that_is_another_at_every_step_says_nothing():
    assert alarms(FALL, FALL, aligned="loss", loss=False) == []
    assert alarms(FALL, FALL, aligned="loss/representation", loss=False) == [3]


def test_another_stage_begins_anew():
    watch = Watch(4)
    for step in range(4):
        watch.add(step, {"rep_cosine": RISE[step], "stage": 1 + (step > 1)})
        assert watch.add(step, {FIGURE: FALL[step]}) is None


def test_what_is_not_finite_raises_none():
    nan = float("nan")
    assert alarms([0.1, nan, 0.3, 0.4], FALL) == []
    assert alarms(RISE, [0.4, 0.3, nan, 0.1]) == []
