"""A batch of which something was not finite, met once more: by which models, layers and tensors.

Letters: B sequences, T all tokens, D width.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from oprd.calibration.bridge.fit import BRIDGE_FILE
from oprd.core.bridge import Bridge
from oprd.core.bridge.space import BridgeSpace
from oprd.core.capture import num_layers
from oprd.core.layers import LayerPair
from oprd.guards.broken import STUDENT, BrokenBatch, batch_files, same_device
from oprd.models.batch import MicroBatch
from oprd.models.finite import first_broken_gradient, first_broken_parameter
from oprd.models.load import load_model, resolve_model
from oprd.models.reader import Reader
from oprd.models.reading import View, read
from oprd.models.teacher import Teacher
from oprd.runs.record import ModelSource, teacher_of_run
from oprd.settings.run import OPRDConfig
from oprd.training.bridges import FIT
from oprd.training.calibration import BRIDGE_FOLDER
from oprd.training.update import Update


class Looked(NamedTuple):
    """One thing that was looked at.

    Attributes:
        what: it is.
        broken: where it is not finite; None where it is.
    """

    what: str
    broken: str | None


def replay(place: Path, *, student: str | None = None, teacher: str | None = None) -> list[Looked]:
    """Let both models of a run meet a batch that it kept once more.

    Args:
        place: the folder that the run named, or a process's file in it.
        student: a path or hub id, in the place of the student that met it.
        teacher: likewise, in the place of the run's.

    Raises:
        FileNotFoundError: there is no batch, or no run around it.
        ValueError: it is damaged, or a model was built in memory and is not given.
    """
    files = batch_files(place)
    folder = files[0].absolute().parent
    run = folder.parent.parent
    models = _load(folder, run, student, teacher)
    found = [
        Looked(f"weights of the {role}", first_broken_parameter(model))
        for role, model in models.items()
    ]
    for file in files:
        found += _meet(BrokenBatch.load(file), run, models)
    return found


def _load(folder: Path, run: Path, student: str | None, teacher: str | None) -> dict[str, Any]:
    """Both models, as they met the batch where the run kept its student."""
    # Else the run's newest.
    met = folder / STUDENT if (folder / STUDENT).is_dir() else run
    sources = {
        "student": ModelSource("student", student or str(met)),
        "teacher": _teacher(run) if teacher is None else ModelSource("teacher", teacher),
    }
    return {
        role: load_model(
            resolve_model(found.source, role),
            base_model=found.base_model,
            revision=found.revision,
            dtype=found.dtype,
        )[0]
        for role, found in sources.items()
    }


def _teacher(run: Path) -> ModelSource:
    try:
        return teacher_of_run(run)
    except ValueError as error:
        raise ValueError(f"{run} does not say where its teacher is: give --teacher.") from error


def _meet(batch: BrokenBatch, run: Path, models: dict[str, Any]) -> Iterator[Looked]:
    """What each micro-batch of a process does."""
    student, taught = models["student"], models["teacher"]
    device = student.device
    settings = dict(batch.settings)
    pairs = tuple(LayerPair(*pair) for pair in batch.pairs)
    args = OPRDConfig(
        output_dir="unused", bf16=False, use_cpu=device.type == "cpu", report_to=[], **settings
    )
    teacher = Teacher(Reader(taught), pairs)
    teacher.mean_squares = {name: dict(found) for name, found in batch.mean_squares.items()}
    if (name := args.bridge) is not None:
        bridge = Bridge.load(run / BRIDGE_FOLDER / BRIDGE_FILE if name == FIT else Path(name))
        teacher.spaces = {name: BridgeSpace(bridge, pairs, device, student.dtype)}
    update = Update.of(args, student, taught, same_meaning=True)
    student.train()
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(batch.precision)
    for number, inputs in enumerate(batch.inputs):
        here = f"rank {batch.rank}, micro-batch {number}"
        micro = MicroBatch.of(same_device(inputs, device))
        with torch.autocast(device.type, half) if half else nullcontext():
            read_by = [("teacher", taught, view) for view in teacher.views(micro).views]
            for role, model, view in (*read_by, ("student", student, micro.view)):
                yield Looked(f"{here}: states of the {role}", broken_states(model, view))
            result = update(student, micro, teacher, update.needs())
        losses = [f"{n} is {v.item()}" for n, v in result.sums.items() if n.startswith("loss/")]
        finite = bool(torch.isfinite(result.objective))
        yield Looked(f"{here}: loss", None if finite else ", ".join(losses) or "the objective")
        student.zero_grad()
        if result.objective.requires_grad:
            result.objective.backward()
        named = first_broken_gradient(student)
        yield Looked(f"{here}: gradient", named and f"of {named}")


@torch.no_grad()
def broken_states(model: nn.Module, view: View) -> str | None:
    """The first layer with a state [D] that is not finite, and at which tokens it has some."""
    every = View.of_texts(view.input_ids, view.attention_mask)
    states = read(model, every, range(1, num_layers(model) + 1)).states
    at = every.rows.nonzero()
    for layer in sorted(states):
        broken: Tensor = ~states[layer].isfinite().all(dim=-1)
        if broken.any():
            sequence, token = at[broken.nonzero()[0, 0]].tolist()
            of = f"{int(broken.sum())} of {len(broken)} tokens"
            return f"layer {layer}, at {of}, first at token {token} of sequence {sequence}"
    return None
