from types import SimpleNamespace

import pytest
import torch

from oprd import OPRDConfig
from oprd.models.finite import first_broken_parameter
from oprd.rollouts.origins import Origins
from oprd.training.writing import Writer
from tests import tiny

PROMPTS = [[65, 66], [67]]


def writer(tmp_path, draw, student=None, **settings):
    """A writer of a trainer that has no more than what writing needs."""
    args = OPRDConfig(
        output_dir=str(tmp_path),
        use_cpu=True,
        bf16=False,
        report_to=[],
        max_completion_length=8,
        **settings,
    )
    student = (student or tiny.model(seed=1)).train()
    trainer = SimpleNamespace(
        args=args,
        student=student,
        state=SimpleNamespace(global_step=0),
        rollouts=SimpleNamespace(origins=Origins(args), write=None),
        use_vllm=False,
        generation_config=SimpleNamespace(max_new_tokens=8),
        eos_token_ids=[0],
        max_completion_length=8,
    )
    return Writer(trainer, draw, SimpleNamespace()), trainer


def test_a_horizon_limits_what_is_drawn_and_is_lifted_afterwards_whatever_happens(tmp_path):
    limits = []

    def draw(prompt_ids, *_):
        limits.append(trainer.generation_config.max_new_tokens)
        if len(limits) == 2:
            raise OSError("the engine is gone")
        return [[66]] * len(prompt_ids)

    horizon = {"from": 2, "to": 8, "steps": 4}
    made, trainer = writer(tmp_path, draw, rollout_horizon=horizon, max_steps=8)
    made.write(PROMPTS)
    with pytest.raises(OSError, match="gone"):
        made.write(PROMPTS)
    assert limits == [2, 2]
    assert trainer.generation_config.max_new_tokens == 8


def test_a_horizon_is_for_training_alone(tmp_path):
    limits = []

    def draw(prompt_ids, *_):
        limits.append(trainer.generation_config.max_new_tokens)
        return [[66]] * len(prompt_ids)

    horizon = {"from": 2, "to": 8, "steps": 4}
    made, trainer = writer(tmp_path, draw, rollout_horizon=horizon, max_steps=8)
    trainer.student.eval()
    made.write(PROMPTS)
    assert limits == [8]


def test_an_error_of_the_engine_is_the_students_where_its_weights_are_broken(tmp_path):
    def draw(*_):
        raise RuntimeError("probability tensor contains inf")

    made, trainer = writer(tmp_path, draw)
    with pytest.raises(RuntimeError, match="probability"):
        made.write(PROMPTS)
    name, weight = next(iter(trainer.student.named_parameters()))
    weight.data.fill_(torch.nan)
    with pytest.raises(FloatingPointError, match=r"not finite before step 1\."):
        made.write(PROMPTS)
    assert name in str(first_broken_parameter(trainer.student))


def test_a_batch_of_an_evaluation_is_not_one_to_learn_from(tmp_path):
    made, trainer = writer(tmp_path, lambda prompt_ids, *_: [[66]] * len(prompt_ids))
    learned = made.next(PROMPTS)
    trainer.student.eval()
    made.next(PROMPTS[:1])
    assert trainer.rollouts.origins.batch == learned
    assert not trainer.rollouts.origins.trains
