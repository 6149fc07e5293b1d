"""What a run of the lab does with its method, on models of two steps."""

import json
from dataclasses import replace

import pytest

from lab import pairs, runs
from lab.methods import (
    ANOTHER_REFERENCE,
    CONSUMED,
    LAYER_SCALES,
    RANDOM_DIRECTION,
    WRITERS,
)
from lab.pairs import Moment
from lab.runs import Run, execute
from lab.tokens import MORE_STEPS, OWN_TOKENS, RAW_IDS, SUPERVISED
from lab.variants.consumed import select_consumed
from lab.variants.direction import RandomDirection
from lab.variants.supervised import Supervised
from oprd import OPRDTrainer
from tests.lab.fakes import TINY_PAIR


@pytest.fixture
def trainers(tiny_pair, monkeypatch):
    """The trainers that runs made."""
    monkeypatch.setattr("lab.sums.SAMPLES", {"reported": 1, "tuning": 1, "curve": 1})
    made, train = [], OPRDTrainer.train
    monkeypatch.setattr(OPRDTrainer, "train", lambda self: made.append(self) or train(self))
    return made


@pytest.mark.filterwarnings("ignore:.*does not say which models:UserWarning")
@pytest.mark.parametrize("method", ["OPRD", CONSUMED, LAYER_SCALES, "OPRD on worked solutions"])
def test_a_run_trains_by_its_method_and_leaves_its_figures(trainers, method):
    run = Run(TINY_PAIR, method, 1e-3, 0, steps=1, rollouts=4, eval_every=1)
    execute(run)
    (trainer,) = trainers
    assert (trainer.rollouts.select is select_consumed) == (method == CONSUMED)
    assert trainer.args.scale == ("layer" if method == LAYER_SCALES else "none")
    assert (trainer.rollouts.write is not None) == (method in WRITERS)
    assert run.finished
    assert {line["step"] for line in run.metrics()} == {0, 1}
    assert run.scores()["reported"]["length"] > 0


@pytest.mark.parametrize("method", [OWN_TOKENS, RAW_IDS, SUPERVISED])
def test_a_run_from_a_teacher_of_other_tokens_trains_by_its_method(
    trainers, tiny_pair, monkeypatch, method
):
    other = Moment(replace(tiny_pair.teacher.recipe, vocabulary=20, width=32), 2)
    monkeypatch.setitem(pairs.PAIRS, TINY_PAIR, replace(tiny_pair, teacher=other))
    options = (("bridge_prompts", 8), ("bridge_rank", 2)) if method != SUPERVISED else ()
    run = Run(TINY_PAIR, method, 1e-3, 0, steps=1, rollouts=8, eval_every=1, options=options)
    execute(run)
    (trainer,) = trainers
    logged = [line for line in run.metrics() if "loss" in line]
    assert len(logged) == MORE_STEPS.get(method, 1)
    # Raw ids are the teacher's own to a run that does not know better.
    assert ("completions/shared_ratio" in logged[0]) == (method != RAW_IDS)
    assert isinstance(trainer, Supervised) == (method == SUPERVISED)
    assert run.finished


@pytest.mark.parametrize("method", ["λ = 1.25", ANOTHER_REFERENCE, RANDOM_DIRECTION])
def test_a_run_past_its_teacher_goes_on_from_its_reference(trainers, method):
    run = Run(TINY_PAIR, method, 1e-3, 0, steps=1, rollouts=4, eval_every=1)
    execute(run)
    (trainer,) = trainers
    reference = trainer._team.reference
    assert isinstance(reference, RandomDirection) == (method == RANDOM_DIRECTION)
    name = reference.reader.model.config.name_or_path
    assert (name == trainer.student.config.name_or_path) == (method != ANOTHER_REFERENCE)


def test_the_same_seed_gives_the_same_numbers(trainers, tmp_path, monkeypatch):
    run = Run(TINY_PAIR, "OPRD", 1e-3, 0, steps=2, rollouts=4, eval_every=2)
    left = []
    for name in ("first", "second"):
        monkeypatch.setattr(runs, "CACHE", tmp_path / name)
        execute(run)
        taken = [
            {k: v for k, v in line.items() if not k.startswith(("seconds", "step_time", "train_"))}
            for line in run.metrics()
        ]
        left.append((taken, run.scores()))
    timed = ("tokens_per_second", "peak_memory_gib")
    for taken, _ in left:
        for line in taken:
            for key in timed:
                line.pop(key, None)
    assert json.dumps(left[0]) == json.dumps(left[1])
