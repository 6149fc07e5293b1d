import torch

from lab.variants.projection import train_projection
from tests.training.test_bridges import POSITIONS, fit
from tests.training.test_heads import made_trainer


def test_the_optimizer_moves_the_student_side_alone_each_step_by_its_own_gradient(tmp_path):
    made = made_trainer(
        tmp_path / "run",
        bridge=fit(tmp_path / "bridge"),
        max_steps=2,
        learning_rate=1e-2,
        **POSITIONS,
    )
    (space,) = made._teacher.spaces.values()
    before = space.bridge.teacher_projection.clone(), space.bridge.student_projection.clone()
    train_projection(made)
    made.train()
    assert torch.equal(space.bridge.teacher_projection, before[0])
    assert not torch.allclose(space.bridge.student_projection, before[1], atol=1e-3)
    assert space.bridge.student_projection.grad is None
