import numpy as np
import pytest
import torch

from lab import noise
from lab.gradients import Objectives
from lab.noise import Noise, measure_noise, rollout_noise, slope, token_noise
from lab.pairs import PAIRS
from tests.lab.theory import models, rollouts


def test_the_slope_is_that_of_the_logarithms():
    points = [{"delta": d, "tokens": {"snr": 3 * d**0.5}} for d in (1, 0.1, 0.01, 1e-5)]
    assert slope(points)["slope"] == pytest.approx(0.5)
    assert slope(points)["error"] == pytest.approx(0, abs=1e-6)


def test_only_the_sampled_token_has_noise_at_fixed_prefixes():
    pair = models()
    at = Objectives(pair.student, pair.teacher, rollouts(pair))
    found = token_noise(pair, at, torch.Generator().manual_seed(0))
    assert found["variance"] > 0
    assert set(found["variance_of_others"].values()) == {0}
    assert found["snr"] == pytest.approx(found["signal"] / found["variance"])


def test_new_rollouts_make_every_objective_noisy(monkeypatch):
    pair = models()
    monkeypatch.setattr(noise, "_objectives", lambda *_: next(made))
    made = (
        Objectives(
            pair.student,
            pair.teacher,
            noise.write_rollouts(pair.student, pair.tokenizer, ["a", "1+2="], 6, seed),
        )
        for seed in range(4)
    )
    found = rollout_noise(pair, None, Noise((0,), (), batches=4), new_prompts=False)
    assert set(found) == set(noise.METHODS_MEASURED)
    assert all(0 < of["variance"] < np.inf for of in found.values())


@pytest.mark.parametrize("new_prompts", [False, True])
def test_every_batch_has_new_rollouts_and_new_prompts_where_that_is_asked(monkeypatch, new_prompts):
    asked = []
    monkeypatch.setattr(noise, "held_out_prompts", lambda pair, count: list(range(count)))
    monkeypatch.setattr(
        noise, "write_rollouts", lambda model, tokenizer, prompts, *_: asked.append((prompts, _))
    )
    monkeypatch.setattr(noise, "Objectives", lambda *_: noise)
    monkeypatch.setattr(noise, "gradient", lambda method: [torch.rand(2)], raising=False)
    rollout_noise(
        models(), PAIRS["sums"], Noise((0,), (), rollouts=2, batches=3), new_prompts=new_prompts
    )
    prompts = {tuple(prompts) for prompts, _ in asked}
    assert prompts == ({(2, 3), (4, 5), (6, 7)} if new_prompts else {(0, 1)})
    assert len({limit_and_seed for _, limit_and_seed in asked}) == 3


def test_a_student_on_the_line_is_a_share_of_the_way_off():
    pair, start = models(), models()
    noise._approach(pair, 0.25)
    for now, before, teacher in zip(
        *(m.parameters() for m in (pair.student, start.student, pair.teacher)), strict=True
    ):
        torch.testing.assert_close(now, teacher + 0.25 * (before - teacher))


def test_a_teacher_that_the_lab_did_not_train_is_refused():
    with pytest.raises(TypeError, match="no earlier checkpoints of Pretrained"):
        measure_noise(PAIRS["additions"], Noise((0,), ()))
