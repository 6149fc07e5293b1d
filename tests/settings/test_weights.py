"""Factors that stay or hand over, as objects and as settings."""

import itertools
import json
import math

import pytest

from oprd.settings.weights import SHAPES, Weight
from tests.settings.test_run import config

AWAY = {"from": 2, "to": 0, "start": 1, "steps": 4}
TOWARDS = {"from": 0, "to": 1, "start": 1, "steps": 4}
BOTH = {"output_loss": "reverse_kl", "max_steps": 10}


def values(weight: Weight, steps: int) -> list[float]:
    return [weight.at(step) for step in range(steps)]


def test_a_number_stays_to_the_last_bit():
    assert values(config(representation_weight=0.1).weights.representation, 3) == [0.1] * 3
    assert config().weights.output == Weight(0.0, 0.0)


def test_a_weight_goes_from_one_value_to_the_other_and_stays_there():
    made = config(**BOTH, representation_weight=AWAY, output_weight={**TOWARDS, "shape": "cosine"})
    assert values(made.weights.representation, 7) == pytest.approx([2, 2, 1.5, 1, 0.5, 0, 0])
    wave = [(1 - math.cos(math.pi * n / 4)) / 2 for n in range(5)]
    assert values(made.weights.output, 7) == pytest.approx([0, *wave, 1])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 7, 10**9])
def test_between_its_ends_it_is_above_zero_and_never_beyond_them(shape, steps):
    rise, fall = Weight(0.0, 3.0, 0, steps, shape), Weight(3.0, 0.0, 0, steps, shape)
    for step in {1, steps // 2, steps - 1} - {0, steps}:
        assert 0 < rise.at(step) <= 3 and 0 < fall.at(step) <= 3
        assert rise.at(step) + fall.at(step) == pytest.approx(3)
    assert (rise.at(0), rise.at(steps), fall.at(0), fall.at(steps)) == (0, 3, 3, 0)


@pytest.mark.parametrize(
    ("start", "steps", "length", "expected"),
    [
        (0, 0.167, 300, (0, 50)),
        (0.5, 0.5, 5, (2, 4)),
        (0.29, 0.29, 100, (29, 58)),
        (0, 0.1, 2, (0, 1)),
        (3, 1, 4, (3, 4)),
        (0, 5.0, 5, (0, 5)),
    ],
)
def test_shares_are_of_the_length_of_the_run(start, steps, length, expected):
    weight = {"from": 1, "to": 2, "start": start, "steps": steps}
    found = config(max_steps=length, representation_weight=weight).weights.representation
    assert (found.start, found.end) == expected


def test_a_weight_is_counted_within_its_stage():
    stages = [{"steps": 4, "output_loss": "jsd", "output_weight": {**TOWARDS, "steps": 0.5}}]
    made = config(stages=[{"steps": 6}, *stages])
    assert values(made.objectives()[1].weights.output, 4) == [0, 0, 0.5, 1]


def test_a_weight_of_the_run_is_that_of_each_of_its_stages():
    made = config(stages=[{"steps": 5}, {"steps": 8}], representation_weight={**AWAY, "to": 1})
    first, second = (stage.weights.representation for stage in made.objectives())
    assert first == second == Weight(2, 1, 1, 5)


def test_text_is_the_same_as_numbers_and_mappings_and_all_keys_are_recorded():
    made = config(**BOTH, representation_weight=json.dumps(AWAY), output_weight="0.5")
    assert made.representation_weight == {**AWAY, "shape": "linear"}
    assert made.output_weight == 0.5
    assert made.to_dict()["representation_weight"] == made.representation_weight
    assert config(**BOTH, representation_weight=AWAY, output_weight=0.5).weights == made.weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**AWAY, "from": -1}, "representation_weight: from must be at least 0"),
        ({**AWAY, "to": math.nan}, "representation_weight: to must be"),
        ({**AWAY, "to": 1e9}, "representation_weight: to must be"),
        ({**AWAY, "from": True}, "representation_weight: from must be"),
        ({**AWAY, "from": "1"}, "representation_weight: from must be"),
        ({**AWAY, "steps": 0}, "representation_weight: steps must be above 0"),
        ({**AWAY, "steps": 2.5}, "representation_weight: steps must be .*a share of all steps"),
        ({**AWAY, "start": -1}, "representation_weight: start must be at least 0"),
        ({**AWAY, "start": None}, "representation_weight: start must be"),
        ({**AWAY, "shape": "step"}, "shape must be one of linear, cosine, got 'step'"),
        ({**AWAY, "form": "linear"}, "a key of representation_weight must be one of from, to,"),
        ({"from": 1, "to": 0}, "representation_weight needs steps: write it as {"),
        ({**AWAY, "to": 2}, "goes from 2 to the same: give the number"),
        ({**AWAY, "start": 7}, "changes until step 11, and there are 10 steps"),
        ({**AWAY, "start": 0.9, "steps": 0.9}, "changes until step 18, and there are 10 steps"),
        ("much", "representation_weight must be a number or such as {.* got 'much'"),
        ("NaN", "representation_weight must be above 0"),
        ("-1", "representation_weight must be above 0"),
        ("[1]", r"representation_weight must be a number, got \[1\]"),
    ],
)
def test_weights_that_cannot_be_are_refused_at_construction(given, message):
    with pytest.raises(ValueError, match=message):
        config(**BOTH, representation_weight=given)


def test_a_weight_that_changes_needs_a_run_of_known_length():
    with pytest.raises(ValueError, match="needs a run of known length: set max_steps"):
        config(representation_weight={**AWAY, "to": 1})


def test_a_weight_longer_than_its_stage_is_refused():
    stages = [{"steps": 9}, {"steps": 4, "representation_weight": {**AWAY, "to": 1}}]
    with pytest.raises(ValueError, match=r"stage 2: .* changes until step 5, and there are 4"):
        config(stages=stages)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"representation_weight": AWAY}, "at step 6 .* is 0 and there is no output_loss"),
        ({"representation_weight": TOWARDS}, "at step 1 .* is 0 and there is no output_loss"),
        ({"output_weight": TOWARDS}, "output_weight changes, and there is no output_loss"),
        (
            {"output_loss": "jsd", "representation_weight": 0, "output_weight": TOWARDS},
            "at step 1 representation_weight is 0 and output_weight too",
        ),
        (
            {
                "output_loss": "jsd",
                "representation_weight": {**AWAY, "start": 0},
                "output_weight": {**TOWARDS, "start": 4},
            },
            "at step 5 representation_weight is 0 and output_weight too",
        ),
        (
            {"output_loss": "jsd", "representation_weight": AWAY, "output_weight": AWAY},
            "at step 6 representation_weight is 0 and output_weight too",
        ),
    ],
)
def test_a_step_without_any_term_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        config(max_steps=10, **options)


@pytest.mark.parametrize("starts", itertools.product(range(4), repeat=2))
@pytest.mark.parametrize("ends", [((1, 0), (0, 1)), ((1, 0), (1, 0)), ((0, 1), (0, 1))])
def test_what_is_accepted_has_a_term_at_every_step(starts, ends):
    first, second = (
        {"from": a, "to": b, "start": start, "steps": 3}
        for (a, b), start in zip(ends, starts, strict=True)
    )
    away, towards = (
        Weight(w["from"], w["to"], w["start"], w["start"] + w["steps"]) for w in (first, second)
    )
    learns = all(away.at(step) + towards.at(step) > 0 for step in range(8))
    try:
        config(output_loss="jsd", max_steps=8, representation_weight=first, output_weight=second)
    except ValueError:
        assert not learns
    else:
        assert learns


def test_a_weight_of_zero_at_some_step_alone_does_not_excuse_a_loss_without_rows():
    with pytest.raises(ValueError, match="of 1 it learns nothing"):
        config(**BOTH, representation_weight=AWAY, state_loss="gram", positions="last")
