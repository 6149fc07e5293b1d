"""Variants of OPRD that only a comparison needs: the official code's positions, scaled layers."""

from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import pad

from lab.pairs import Pair
from lab.readings import load_models, read_states, write_rollouts
from oprd import OPRDConfig
from oprd.core.bridge import Bridge
from oprd.core.bridge.bridge import PairFit
from oprd.training.batch import select

# Rollouts of the untouched student whose teacher states give a layer its scale.
ROLLOUTS = 250


def select_consumed(output: dict[str, Any], args: OPRDConfig) -> None:
    """Supervise one position later: the state after reading ŷ_t, as the official code has it.

    The state that predicts the first token is never supervised, and the one after the last is. In
    terms of predicting states the mask moves by one column, of which there is one more.
    """
    select(output, args)
    # Whatever stands in the new column is masked.
    output["completion_ids"] = pad(output["completion_ids"], (0, 1))
    output["completion_mask"] = pad(output["completion_mask"], (0, 1))
    output["positions"] = pad(output["positions"], (1, 0))


def write_layer_scales(pair: Pair, folder: Path, seed: int) -> Path:
    """A bridge between models of one width that divides each layer by its scale and does no more.

    The scale σ_l is the root mean square of the teacher's states at layer l, so that through the
    bridge, without unit length, a layer's loss is its squared error relative to them:

        1/D ‖h_student − h_teacher‖² / σ_l²

    Args:
        pair: whose untouched student writes the rollouts that the teacher reads.
        folder: where the file goes; made where it is not there.
        seed: of the training problems and of the rollouts.
    """
    models = load_models(pair.student.path(), pair.teacher.path())
    task = pair.task_module
    prompts = [prompt for prompt, _ in task.examples("train", ROLLOUTS, seed=seed)]
    batch = write_rollouts(
        models.student, models.tokenizer, prompts, task.LONGEST_RESPONSE, seed=seed
    )
    states = read_states(models.teacher, batch)
    squares = torch.stack([rows.double().square().mean() for rows in states.values()])
    width, rows = next(iter(states.values())).shape[1], len(next(iter(states.values())))
    projection = (torch.eye(width) / squares.sqrt()[:, None, None]).float()
    mean = torch.zeros(len(states), width)
    # The identity keeps everything and fits nothing.
    kept = torch.ones(width, dtype=torch.float64)
    bridge = Bridge(
        [(layer, layer) for layer in states],
        student_projection=projection,
        student_mean=mean,
        teacher_projection=projection.clone(),
        teacher_mean=mean.clone(),
        statistics=[PairFit(kept, kept, 1.0, 1.0, 0.0) for _ in states],
        rows=rows,
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "layer-scales.safetensors"
    bridge.save(file)
    return file
