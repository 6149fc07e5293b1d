"""What a run of the lab does with its method, on models of two steps."""

import json

import pytest

from lab import runs
from lab.methods import CONSUMED, LAYER_SCALES, OFF_POLICY
from lab.runs import Run, execute
from lab.variants.consumed import select_consumed
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
    assert (trainer.rollouts.write is not None) == (method in OFF_POLICY)
    assert run.finished
    assert {line["step"] for line in run.metrics()} == {0, 1}
    assert run.scores()["reported"]["length"] > 0


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
