"""Every setting of ours is read by what runs, not only checked."""

import ast
import dataclasses
from pathlib import Path

import pytest
from trl import DistillationConfig

from oprd import OPRDConfig

SOURCE = Path(__file__).parents[2] / "src" / "oprd"
# What a setting is read as, where a property stands between.
THROUGH = {
    "learning_rate": {"rate"},
    "layers": {"layer_spec"},
    "state_loss": {"state"},
    "representation_weight": {"weights"},
    "output_weight": {"weights"},
    "state_loss_kwargs": {"state"},
    "output_loss": {"output"},
    "output_loss_kwargs": {"output"},
    "stages": {"objectives", "schedule"},
    "eval_tasks": {"eval_task_names"},
    "allow_changed": {"allowed_changes"},
    "end_tokens": {"joins_ends"},
    "rollouts_per_prompt": {"rollouts_needed"},
    "rollout_horizon": {"response_limit"},
    "teacher_prefix": {"prefix_share"},
    "replay_share": {"replayed_per_step"},
    "curriculum_floor": {"loaded_per_step"},
    "teacher_tokenizer": {"reads_own_tokens"},
}
OURS = sorted(
    {field.name for field in dataclasses.fields(OPRDConfig)}
    - {field.name for field in dataclasses.fields(DistillationConfig)}
)


def read_names(folder: Path) -> set[str]:
    """Attributes that code below a folder reads, by name or as text for getattr."""
    found: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                found.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


RUNS = set().union(
    *(read_names(SOURCE / room) for room in ("training", "rollouts", "guards", "serving"))
)


@pytest.mark.parametrize("name", OURS)
def test_a_setting_reaches_what_trains(name):
    assert THROUGH.get(name, {name}) & RUNS, name


def test_a_setting_that_nobody_reads_would_be_seen():
    assert "no_such_setting" not in RUNS
    assert set(THROUGH) <= {*OURS, "learning_rate"}
