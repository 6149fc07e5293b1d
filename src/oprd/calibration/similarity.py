"""How alike two models' layers are on rollouts of the student, by debiased linear CKA.

Letters: N rows, L_S and L_T layers of the student and of the teacher, D width.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from oprd.calibration.processes import from_main
from oprd.calibration.reading import Active, check_finite, naming_prompts, rows_of, view_of
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import Selection, Teach, batches, draw_rows, select_rows
from oprd.core.capture import num_layers
from oprd.core.cka import MIN_ROWS, debiased_cka
from oprd.core.positions import PositionSpec
from oprd.runs.progress import progress_bar

# What is read at most. Rows of all layers are in memory together: of 28 layers of 2048 and 36 of
# 2560 they are 0.3 GB in bfloat16. Between SmolLM2-135M and itself without ten of its blocks, any
# draw of 256 to 2,048 rows gives the same pairs but for one layer, whose best three are a tie.
MAX_ROLLOUTS, MAX_ROWS = 256, 1024
# What is recorded decides, and smaller differences are noise.
DECIMALS = 4


def measure_similarity(
    student: Any,
    teacher: Any,
    rollouts: Sequence[Rollout],
    positions: PositionSpec,
    position_k: int,
    *,
    setting: str = "the similarity of layers",
    batch_size: int = 8,
    seed: int = 0,
    teacher_active: Active = nullcontext,
    progress: bool = True,
    teach: Teach = None,
) -> Tensor:
    """[L_S, L_T] CKA of every student layer with every teacher layer, to `DECIMALS` places.

    Every process calls it; the main one reads, and all get its numbers.

    Args:
        student: a causal language model; its mode is left as it was.
        teacher: likewise, of any depth and width; the student itself where its base serves both.
        rollouts: what the student wrote; the first `MAX_ROLLOUTS` by prompt are read.
        positions: which response tokens are supervised.
        position_k: how many, for `"first_k"` and `"last_k"`.
        setting: what asks for it, in messages.
        batch_size: rollouts that are read at once.
        seed: of the draw of `MAX_ROWS` rows where there are more.
        teacher_active: entered while the teacher reads.
        progress: whether to show a progress bar.
        teach: see `select_rows`.

    Raises:
        ValueError: there are too few rows, or see `debiased_cka`.
        FloatingPointError: a row is not finite; the message names its prompt.
    """
    first = sorted(rollouts, key=lambda rollout: rollout.prompt)[:MAX_ROLLOUTS]
    selections = draw_rows(select_rows(first, positions, position_k, teach=teach), MAX_ROWS, seed)
    count = sum(selection.rows for selection in selections)
    if count < MIN_ROWS:
        raise ValueError(
            f"{setting} has {count} supervised positions of {len(first)} rollouts to go by, and a "
            f"debiased estimate needs {MIN_ROWS}: add prompts, or name pairs such as "
            "layer_pairing='1:1,2:3'."
        )

    def measure() -> Tensor:
        shares = batches(selections, batch_size, 0, 1)
        ours, theirs = _read(student, teacher, shares, teacher_active, progress)
        return debiased_cka(ours, theirs).round(decimals=DECIMALS).cpu()

    return from_main(measure)


def _read(
    student: Any,
    teacher: Any,
    shares: Sequence[Sequence[Selection]],
    teacher_active: Active,
    progress: bool,
) -> tuple[list[Tensor], list[Tensor]]:
    """Rows [N, D] of every layer of both models, in the models' dtypes."""
    # Elsewhere than on CUDA there is no float64 off the CPU.
    device = student.device if student.device.type == "cuda" else torch.device("cpu")
    ours: list[list[Tensor]] = [[] for _ in range(num_layers(student))]
    theirs: list[list[Tensor]] = [[] for _ in range(num_layers(teacher))]
    with progress_bar(progress) as bar:
        shown = bar.add_task("similarity", total=sum(map(len, shares)))
        for batch in shares:
            with naming_prompts(batch):
                _add(ours, "student", student, batch, device)
                with teacher_active():
                    _add(theirs, "teacher", teacher, batch, device)
            bar.advance(shown, len(batch))
    return [torch.cat(rows) for rows in ours], [torch.cat(rows) for rows in theirs]


def _add(
    found: list[list[Tensor]],
    source: str,
    model: Any,
    batch: Sequence[Selection],
    device: torch.device,
) -> None:
    """Add a batch's rows of each layer, all of them finite."""
    view = view_of(batch, of_teacher=source == "teacher")
    read = rows_of(model, view, range(1, len(found) + 1))
    check_finite(source, read)
    for layer, rows in read.items():
        found[layer - 1].append(rows.to(device))
