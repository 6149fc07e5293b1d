"""Two models and the student's rollouts in, a bridge and what it can be expected to carry out.

Letters: S student width, H teacher width.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from oprd.calibration.bridge.heads import (
    Carried,
    Common,
    check_heads,
    head_statistics,
    heads_of_last,
    sums_device,
)
from oprd.calibration.bridge.report import bridge_report
from oprd.calibration.bridge.scores import score_held_out
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.bridge.stream import StatisticsFile, stream
from oprd.calibration.identity import prompts_identity, reads_facts, supervised_positions
from oprd.calibration.pairing import SIMILARITY, PairedLayers
from oprd.calibration.reading import Active, RowReader
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import Selection, Teach, batches, hold_out, select_rows
from oprd.calibration.similarity import measure_similarity
from oprd.core.bridge import Bridge, BridgeFitter
from oprd.core.bridge.bases import below_heads, reads_heads
from oprd.core.bridge.check import checked_rank
from oprd.core.bridge.heads import HeadStatistics
from oprd.core.bridge.ridge import choose_ridge
from oprd.core.capture import hidden_size
from oprd.core.layers import LayerPair
from oprd.models.heads import lm_head
from oprd.models.matching import paired_layers
from oprd.models.reread import Reread
from oprd.runs.progress import progress_bar
from oprd.secrets import masked

BRIDGE_FILE = "bridge.safetensors"


@dataclass(frozen=True)
class BridgeFit:
    """A bridge, and the report on it: a dictionary that JSON can hold."""

    bridge: Bridge
    report: dict[str, Any]

    def save(self, folder: Path) -> Path:
        """Write `bridge.safetensors`, whose path is returned, and `report.json`."""
        path = folder / BRIDGE_FILE
        self.bridge.save(path)
        (folder / "report.json").write_text(masked(json.dumps(self.report)) + "\n")
        return path


def check_fit(student: Any, teacher: Any, settings: FitSettings) -> None:
    """Refuse a fit that is not possible.

    Raises:
        ValueError: a layer does not exist or has no partner, the rank is above a width, an LM head
            that the basis needs cannot be read, or it would have to serve a lower pair.
    """
    layers = paired_layers(student, teacher, settings.layers, settings.layer_pairing)
    lower = below_heads(settings.basis)
    if lower is not None:
        checked_rank(settings.rank, hidden_size(student), hidden_size(teacher))
    if lower == "fisher":
        lm_head(teacher)
    if reads_heads(settings.basis):
        check_heads(student, teacher, layers, settings)


def fit_bridge(
    student: Any,
    teacher: Any,
    rollouts: Sequence[Rollout],
    settings: FitSettings,
    *,
    provenance: Mapping[str, Any] | None = None,
    folder: Path | None = None,
    progress: bool = True,
    teach: Teach = None,
    common: Common = None,
    teacher_active: Active = nullcontext,
) -> BridgeFit:
    """Fit a bridge; under `accelerate launch` every process calls it and reads its share.

    Four fifths of the rollouts are fitted on, the rest is what the ridge is chosen and the report
    is made by.

    Args:
        student: a causal language model.
        teacher: likewise, of any depth and width, that reads the student's token ids, or what
            `teach` makes of them.
        rollouts: what the student wrote.
        settings: what is fitted.
        provenance: `student` and `teacher` of `model_identity`, `rollouts` of `drawn_rollouts`, and
            whatever else says what the rollouts are.
        folder: where statistics are saved now and then, to go on with after an interruption.
        progress: whether to show a progress bar.
        teach: reads a rollout as a teacher with tokens of its own does; states that meet are read.
        common: then the tokens that both vocabularies have, over which LM heads are read.
        teacher_active: entered while the teacher reads, where it is another's base that does.

    Raises:
        ValueError: there are too few rows, a layer is constant, one of `teach` and `common` is
            given without the other, or see `check_fit`.
        FloatingPointError: a row is not finite; the message names its prompt.
    """
    check_fit(student, teacher, settings)
    if (teach is None) != (common is None):
        raise ValueError("teach and common are of a teacher with its own tokens: give both.")
    selections = select_rows(
        rollouts, settings.positions, settings.position_k, settings.max_rows, teach
    )
    fit, held_out = hold_out(selections)
    _check_rows(fit, settings)
    provenance = {
        **(provenance or {}),
        "positions": supervised_positions(settings.positions, settings.position_k),
        "prompts": prompts_identity([rollout.prompt_ids for rollout in rollouts]),
        **reads_facts(own=teach is not None),
    }
    state = PartialState()
    is_shown = progress and state.is_main_process
    paired = _pair(student, teacher, rollouts, settings, is_shown, teach, teacher_active)
    pairs = paired.pairs
    gradients = below_heads(settings.basis) == "fisher"
    seed = settings.seed if gradients else None
    reader = RowReader(student, teacher, pairs, seed, teacher_active)
    rows = sum(selection.rows for selection in fit)
    heads = head_statistics(student, teacher, pairs, settings, rows, common)
    fitters = [new_fitter(student, teacher, pairs, of) for of in (heads, None)]
    shares = [
        batches(part, settings.batch_size, state.process_index, state.num_processes)
        for part in (fit, held_out)
    ]
    saved = _statistics_file(folder, selections, settings, pairs, provenance)
    of_last = heads_of_last(student, teacher, pairs, common)
    own_held_out = sum(len(batch) for batch in shares[1])
    with progress_bar(progress and state.is_main_process) as bar:
        total = sum(len(batch) for share in shares for batch in share)
        shown = bar.add_task("reading", total=total)
        work = list(zip(fitters, shares, strict=True))
        stream(reader, work, saved, lambda count: bar.advance(shown, count))
        for fitter in fitters:
            fitter.all_reduce()
        shown = bar.add_task("solving", total=1)
        bridge, widest = solve_bridges(fitters, settings, provenance)
        bar.advance(shown)
        shown = bar.add_task("judging", total=own_held_out)
        scores = score_held_out(
            reader,
            bridge,
            widest,
            shares[1],
            lambda count: bar.advance(shown, count),
            of_last,
            None if common is None or of_last is None else Carried(teacher, common[1]),
        )
    state.wait_for_everyone()
    if saved is not None:
        saved.remove()
    counts = {"rollouts": len(rollouts), "fit": len(fit), "held_out": len(held_out)}
    report = {**bridge_report(bridge, scores, counts), SIMILARITY: paired.similarity}
    return BridgeFit(bridge, report)


def _pair(
    student: Any,
    teacher: Any,
    rollouts: Sequence[Rollout],
    settings: FitSettings,
    progress: bool,
    teach: Teach,
    teacher_active: Active,
) -> PairedLayers:
    """The layers that are fitted, measured on the rollouts and shown where they are chosen so."""
    measure = partial(
        measure_similarity,
        student,
        teacher,
        rollouts,
        settings.positions,
        settings.position_k,
        setting=f"layer_pairing={settings.layer_pairing!r}",
        batch_size=settings.batch_size,
        seed=settings.seed,
        teacher_active=teacher_active,
        progress=progress,
        teach=teach,
    )
    paired = PairedLayers.of(student, teacher, settings.layers, settings.layer_pairing, measure)
    if progress:
        paired.show()
    return paired


def solve_bridges(
    fitters: Sequence[BridgeFitter],
    settings: FitSettings,
    provenance: Mapping[str, Any] | None = None,
) -> tuple[Bridge, Bridge]:
    """The bridge, and that of the highest rank that the rows determine.

    Args:
        fitters: of what is fitted, and of what the ridge is chosen by.
        settings: of which rank, basis, ridge and centring count.
        provenance: of the bridge.
    """
    fitter, validation = fitters
    options: dict[str, Any] = {"basis": settings.basis, "center": settings.center}
    ridge: float | dict[int, float] | None = settings.ridge
    if ridge is None and below_heads(settings.basis) is not None:
        ridge = choose_ridge(fitter, validation, settings.rank, **options)
    options["ridge"] = ridge or 0.0
    bridge = fitter.solve(
        settings.rank, **options, heads_rank=settings.heads_rank, provenance=provenance
    )
    return bridge, fitter.solve(fitter.highest_rank(**options), **options)


def new_fitter(
    student: Any, teacher: Any, pairs: Sequence[LayerPair], heads: HeadStatistics | None = None
) -> BridgeFitter:
    """An empty fitter of two models' layers, where their rows are."""
    return BridgeFitter(
        pairs,
        hidden_size(student),
        hidden_size(teacher),
        device=sums_device(student),
        products=torch.float32 if student.device.type == "cuda" else torch.float64,
        heads=heads,
    )


def _check_rows(fit: Sequence[Selection], settings: FitSettings) -> None:
    rows, rank = sum(selection.rows for selection in fit), settings.rank
    if below_heads(settings.basis) is not None and rows <= rank:
        raise ValueError(
            f"{rows} rows to fit on determine at most {max(rows - 1, 0)} directions, and rank is "
            f"{rank}: add prompts, raise max_rows, or lower the rank."
        )


def _statistics_file(
    folder: Path | None,
    selections: Sequence[Selection],
    settings: FitSettings,
    pairs: Sequence[LayerPair],
    provenance: Mapping[str, Any],
) -> StatisticsFile | None:
    if folder is None:
        return None
    state = PartialState()
    # Rank, ridge and centring are for the solve: statistics serve any of them. So they do however
    # the pairs were chosen.
    solved_later = {"rank", "heads_rank", "ridge", "center", "layers", "layer_pairing"}
    read = {name: value for name, value in asdict(settings).items() if name not in solved_later}
    read["basis"] = below_heads(settings.basis) == "fisher"
    read["heads_metric"] = settings.heads_metric if reads_heads(settings.basis) else None
    identity = {
        "settings": read,
        "pairs": pairs,
        "models": [provenance.get("student"), provenance.get("teacher")],
        "process": [state.process_index, state.num_processes],
        "rollouts": _digest(selections),
    }
    return StatisticsFile(folder / f"statistics-{state.process_index}.safetensors", identity)


def _states(response: Reread) -> list[Any]:
    """What decides which states are read of a response, and which of them meet."""
    return [response.ids, response.partners, response.only_ends]


def _digest(selections: Sequence[Selection]) -> str:
    digest = hashlib.sha256()
    for selection in selections:
        rollout = selection.rollout
        ids = (rollout.prompt, rollout.prompt_ids, rollout.completion_ids)
        # As it was before there was another way to read.
        own = [] if (of := selection.taught) is None else [[of.prompt_ids, _states(of.response)]]
        digest.update(json.dumps([ids, selection.positions.tolist(), *own]).encode())
    return digest.hexdigest()
