# %% [markdown]
# # A loss of one's own
#
# A loss on states is a class of a few lines; its name in a table makes it a setting like any
# other. Here is one, checked against its definition, and a run that trains by it. It uses
# `student`, `teacher` and the prompts of [the first notebook](first_run.py), and takes half a
# minute on one processor core.

# %%
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import load_dataset
from torch import Tensor

from oprd import OPRDConfig, OPRDTrainer
from oprd.core.objective import STATE_LOSSES
from oprd.core.states.loss import RowDistances, Sequences, StateLoss, with_statistics

# %% [markdown]
# ## The class
#
# It is given the supervised rows of one layer, `student` with a graph and `teacher` without, and
# returns a value for each. A row's value may depend on the rows of its own sequence (`sequences`
# says which these are) and on no others; so it does not matter how a batch is split. What it is
# told stands in its fields, and is refused where it cannot be.


# %%
@dataclass(frozen=True)
class Huber(StateLoss):
    """1/D Σ_d of x²/2 where |x| ≤ δ, and δ (|x| − δ/2) beyond, with x = s_d − t_d."""

    delta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.delta > 0:
            raise ValueError(f"delta must be above 0, got {self.delta!r}.")

    def __call__(self, student: Tensor, teacher: Tensor, sequences: Sequences) -> RowDistances:
        """Compare rows [N, D]."""
        target = teacher.detach().to(student)
        loss = torch.nn.functional.huber_loss(student, target, reduction="none", delta=self.delta)
        return with_statistics(loss.mean(dim=1), student, teacher)


STATE_LOSSES["huber"] = Huber

# %% [markdown]
# ## Its definition, in loops
#
# A loss is worth what a slow and plain version says it is: value and gradient.

# %%
torch.manual_seed(0)
student = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
teacher = torch.randn(5, 7, dtype=torch.float64)
rows = Huber(delta=0.5)(student, teacher, Sequences(torch.ones(1, 5)))
rows.distance.sum().backward()
for n in range(5):
    total = 0.0
    for d in range(7):
        x = (student[n, d] - teacher[n, d]).item()
        total += x * x / 2 if abs(x) <= 0.5 else 0.5 * (abs(x) - 0.25)
        slope = max(-0.5, min(0.5, x)) / 7
        assert abs(student.grad[n, d].item() - slope) < 1e-12
    assert abs(rows.distance[n].item() - total / 7) < 1e-12

# %% [markdown]
# ## A run by it
#
# `state_loss` and `state_loss_kwargs` name it in Python. A program of one's own that puts it into
# the table and then calls `oprd.cli.main.app()` has it on the command line and in files of
# settings as well.

# %%
trainer = OPRDTrainer(
    model="student",
    teacher_model="teacher",
    args=OPRDConfig(
        output_dir="runs/own-loss",
        state_loss="huber",
        state_loss_kwargs={"delta": 0.5},
        max_steps=60,
        per_device_train_batch_size=32,
        max_completion_length=8,
        learning_rate=2e-3,
        eval_tasks="reversal.py",
        eval_steps=60,
        logging_steps=10,
        save_strategy="no",
        use_cpu=True,
        report_to=[],
    ),
    train_dataset=load_dataset("json", data_files="prompts.jsonl", split="train"),
)
trainer.train()

# %%
from oprd.runs.metrics import read_metrics

lines = [line for line in read_metrics(Path("runs/own-loss")) if "eval/reversal/avg@4" in line]
for line in lines:
    print(f"step {line['step']}: {line['eval/reversal/avg@4']:.1%}")
assert lines[-1]["eval/reversal/avg@4"] > lines[0]["eval/reversal/avg@4"]
