"""A loss of one's own, as CONTRIBUTING.md tells: a class and a line, and all the rest follows."""

import json
from dataclasses import dataclass

import pytest

from oprd.analysis.cost import measure_cost
from oprd.core.objective import OUTPUT_LOSSES, STATE_LOSSES
from oprd.core.output.loss import OutputLoss, Slope
from oprd.core.states.loss import StateLoss, with_statistics
from tests import tiny
from tests.analysis.test_cost import SMALL
from tests.training import runs
from tests.training.runs import largest_difference, trainer, weights


@dataclass(frozen=True)
class Absolute(StateLoss):
    """factor · 1/D Σ_d |s_d − t_d|."""

    factor: float = 1.0

    def __post_init__(self):
        if not self.factor > 0:
            raise ValueError(f"factor must be above 0, got {self.factor!r}.")

    def __call__(self, student, teacher, sequences):
        distance = (student - teacher.detach().to(student)).abs().mean(dim=1)
        return with_statistics(self.factor * distance, student, teacher)


@dataclass(frozen=True)
class Brier(OutputLoss):
    """factor · Σ_v (p − q)², whose slope is 2 factor · p (p − q − Σ p (p − q))."""

    factor: float = 1.0

    def __call__(self, chunk):
        q = chunk.log_q().exp_()
        p = chunk.log_p().exp_()
        difference = p - q
        mean = (p * difference).sum(dim=1, keepdim=True)
        slope = 2 * self.factor * p * (difference - mean)
        return Slope(self.factor * difference.square().sum(dim=1), slope)


STATES = {"state_loss": "absolute", "state_loss_kwargs": {"factor": 3.0}}
OUTPUTS = {
    "output_loss": "brier",
    "output_loss_kwargs": {"factor": 3.0},
    "representation_weight": 0.0,
}
BOTH = {**OUTPUTS, **STATES, "representation_weight": 2.0}
each = pytest.mark.parametrize("own", [STATES, OUTPUTS, BOTH], ids=["states", "outputs", "both"])


@pytest.fixture(autouse=True)
def tables(monkeypatch):
    monkeypatch.setitem(STATE_LOSSES, "absolute", Absolute)
    monkeypatch.setitem(OUTPUT_LOSSES, "brier", Brier)


def step(folder, **options):
    """The weights after a step in float64 on four rollouts, and the loss."""
    models = [tiny.model(seed=seed).double() for seed in (1, 2)]
    made = trainer(
        folder, *models, **{"prompts": runs.PROMPTS[:4], "shuffle_dataset": False, **options}
    )
    made.train()
    return weights(made.student), made.state.log_history[0]["loss"]


@each
def test_it_trains_by_its_name_with_its_parameters(tmp_path, own):
    after, loss = step(tmp_path / "three", **own)
    assert largest_difference(after, weights(tiny.model(seed=1).double())) > 0
    plain = {name: None if name.endswith("kwargs") else value for name, value in own.items()}
    _, once = step(tmp_path / "one", **plain)
    assert loss == pytest.approx(3 * once, rel=1e-6)
    recorded = json.loads((tmp_path / "three" / "run.json").read_text())
    assert '"factor": 3.0' in json.dumps(recorded)


@each
def test_it_takes_the_same_step_however_the_batch_is_laid_out(tmp_path, own):
    expected, loss = step(tmp_path / "0", **own)
    others = [
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        {"pad_to_multiple_of": 64},
        {"prompts": runs.PROMPTS[3::-1]},
    ]
    for number, other in enumerate(others, 1):
        after, found = step(tmp_path / str(number), **own, **other)
        assert largest_difference(after, expected) < 1e-6
        assert found == pytest.approx(loss, rel=1e-5)


def test_it_is_priced_beside_all_others():
    priced = measure_cost([SMALL], ["absolute", "brier"], rounds=1, memory=False)
    entries = {entry["name"]: entry for entry in priced["points"][0]["objectives"]}
    assert set(entries) == {"floor", "absolute", "brier"}
    assert all(entry["time_to_floor"]["median"] > 0 for entry in entries.values())
    assert entries["absolute"]["family"] == "representation"


def test_its_parameters_are_refused_in_its_own_words_and_under_their_setting(tmp_path):
    with pytest.raises(ValueError, match="state_loss_kwargs: factor must be above 0, got -1"):
        runs.settings(tmp_path, state_loss="absolute", state_loss_kwargs={"factor": -1})
    with pytest.raises(ValueError, match=r"'brier' takes factor \(did you mean factor\?\)"):
        runs.settings(tmp_path, output_loss="brier", output_loss_kwargs={"factr": 2})
