"""A batch of which something was not finite, met once more: by which models, layers and tensors.

Letters: B sequences, T all tokens, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
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
from oprd.models.parts import Part
from oprd.models.reader import Reader
from oprd.models.reading import View, read
from oprd.models.reference import Reference
from oprd.models.shared_base import base_active
from oprd.models.teacher import Teacher
from oprd.runs.record import ModelSource, read_record, teacher_of_run
from oprd.settings.run import OPRDConfig
from oprd.training.bridges import FIT
from oprd.training.calibration import BRIDGE_FOLDER
from oprd.training.update import Update

# In the place of a path: the student's base under its adapter.
BASE = "base"


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
    """Models by role, as they met the batch where the run kept its student."""
    # Else the run's newest.
    met = folder / STUDENT if (folder / STUDENT).is_dir() else run
    sources = {"student": ModelSource("student", student or str(met)), **_frozen(run, teacher)}
    models: dict[str, Any] = {}
    for role, found in sources.items():
        if found.source == BASE:
            models[role] = models["student"]
            continue
        models[role] = load_model(
            resolve_model(found.source, role),
            base_model=found.base_model,
            revision=found.revision,
            dtype=found.dtype,
        )[0]
    return models


def _frozen(run: Path, teacher: str | None) -> dict[str, ModelSource]:
    """Where a run's teachers are, and what an extrapolation goes on from."""
    record = read_record(run) or {}
    settings: Mapping[str, Any] = record.get("settings") or {}
    found: dict[str, ModelSource] = {}
    several: Sequence[Mapping[str, Any]] = settings.get("teachers") or ()
    if several and teacher is not None:
        raise ValueError(f"{run} has several teachers, of which --teacher cannot be one.")
    for one in several:
        source = one.get("adapter") or one.get("source")
        if source in (None, "copy", "ema"):
            raise ValueError(
                f"{run} does not say where its teacher {one['name']!r} is, which was made of the "
                "student or built in memory: its batch cannot be met again."
            )
        base = one.get("source") if one.get("adapter") else None
        role = f"teacher {one['name']}"
        found[role] = ModelSource(role, str(source), base, one.get("revision"))
    if not several:
        own = settings.get("teacher_source") == BASE and teacher is None
        given = ModelSource("teacher", BASE if own else teacher or "")
        found["teacher"] = given if given.source else _teacher(run)
    if settings.get("extrapolation", 1) != 1:
        reference = settings.get("reference_model")
        if not reference:
            raise ValueError(
                f"{run} does not say where its reference is, which was built in memory: the "
                "targets of its batch cannot be made again."
            )
        found["reference"] = ModelSource("reference", reference)
    return found


def _teacher(run: Path) -> ModelSource:
    try:
        return teacher_of_run(run)
    except ValueError as error:
        raise ValueError(f"{run} does not say where its teacher is: give --teacher.") from error


def _meet(batch: BrokenBatch, run: Path, models: dict[str, Any]) -> Iterator[Looked]:
    """What each micro-batch of a process does."""
    student = models["student"]
    device = student.device
    args = OPRDConfig(
        output_dir="unused",
        bf16=False,
        use_cpu=device.type == "cpu",
        report_to=[],
        **dict(batch.settings),
    )
    teachers = _teachers(batch, run, models, args)
    student.train()
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(batch.precision)
    for number, inputs in enumerate(batch.inputs):
        here = f"rank {batch.rank}, micro-batch {number}"
        micro = MicroBatch.of(same_device(inputs, device))
        with torch.autocast(device.type, half) if half else nullcontext():
            meetings = {}
            for index, (role, (teacher, update)) in enumerate(teachers.items()):
                part = Part.of(micro, index) if batch.teachers else Part(micro)
                for view in teacher.views(part.batch).views:
                    with teacher.reader.reading(student):
                        states = broken_states(teacher.reader.own(student), view)
                    yield Looked(f"{here}: states of the {role}", states)
                meetings[teacher.name] = update.begin(student, part, teacher, update.needs())
            yield Looked(f"{here}: states of the student", broken_states(student, micro.view))
            _, first = next(iter(teachers.values()))
            result = first.meet(student, micro, meetings)
        losses = [f"{n} is {v.item()}" for n, v in result.sums.items() if n.startswith("loss/")]
        finite = bool(torch.isfinite(result.objective))
        yield Looked(f"{here}: loss", None if finite else ", ".join(losses) or "the objective")
        student.zero_grad()
        if result.objective.requires_grad:
            result.objective.backward()
        named = first_broken_gradient(student)
        yield Looked(f"{here}: gradient", named and f"of {named}")


def _teachers(
    batch: BrokenBatch, run: Path, models: dict[str, Any], args: OPRDConfig
) -> dict[str, tuple[Teacher, Update]]:
    """The teachers that met a batch, by role, and what an update does with each."""
    student, device = models["student"], models["student"].device

    def reader(role: str) -> Reader:
        own = models[role] is student
        return Reader(models[role], base_active if own else None)

    reference = None
    if "reference" in models:
        reference = Reference(reader("reference"), args.extrapolation)
    found = {}
    named = {f"teacher {n}": (n, pairs) for n, pairs in batch.teachers.items()}
    for role, (name, own) in (named or {"teacher": ("", batch.pairs)}).items():
        pairs = tuple(LayerPair(*pair) for pair in own)
        teacher = Teacher(reader(role), pairs, reference=reference, name=name)
        before = f"{name}/" if name else ""
        teacher.mean_squares = {
            bridge.removeprefix(before): dict(sizes)
            for bridge, sizes in batch.mean_squares.items()
            if bridge.startswith(before)
        }
        if (bridge := args.bridge) is not None:
            at = run / BRIDGE_FOLDER / BRIDGE_FILE if bridge == FIT else Path(bridge)
            space = BridgeSpace(Bridge.load(at), pairs, device, student.dtype)
            teacher.spaces = {bridge: space}
        found[role] = teacher, Update.of(args, student, models[role], same_meaning=True)
    return found


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
