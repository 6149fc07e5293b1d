"""What a step measures: how well the models agree, as sums over positions.

Letters: B sequences, K response tokens, M response rows, L layer pairs, D width.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from oprd.core.layers import LayerPair
from oprd.core.output.diagnostics import output_diagnostics
from oprd.core.output.drift import drift
from oprd.core.output.pair import Pair
from oprd.core.states.comparison import LayersLoss

# The paper's diagnostic compares the sixteen likeliest tokens.
OVERLAP = 16


class StepStatistics:
    """Sums over the micro-batches of a step, by name: on the device, read once a step.

    Names are the same in all processes, and a step's sums go through one reduction. They are:

        positions                            supervised positions of the representation term
        supervised                           positions that any term supervises
        cosine, student_norm, teacher_norm   [L] per layer pair, over the positions
        last_norm                            [2] of the last states of student and teacher
        loss/…                               each term's mean
        diagnostics/…                        over response tokens, and their count
        drift/…                              total over response tokens, and their count

    Of several teachers, each has positions, cosine and norms of its own, by its name and a stroke,
    and besides:

        tokens                               response tokens of its sequences
        objective, count                     its share of the objective, and what it is divided by

    Args:
        teachers: by name, empty for the only one: the layer pairs, in the order of the statistics,
            and the layers of the student and of the teacher.

    Attributes:
        own: the sums of this process that were taken last.
    """

    def __init__(self, teachers: Mapping[str, tuple[Sequence[LayerPair], tuple[int, int]]]) -> None:
        self._teachers = teachers
        self._sums: dict[str, Tensor] = {}
        self.own: Mapping[str, Tensor] = {}

    def add(self, sums: Mapping[str, Tensor]) -> None:
        """Add a micro-batch."""
        for name, value in sums.items():
            value = value.detach().float()
            self._sums[name] = self._sums[name] + value if name in self._sums else value

    def take(self, reduce: Callable[[Tensor], Tensor] = lambda sums: sums) -> dict[str, Tensor]:
        """The sums since the last call, over all processes by `reduce`; empty if there are none."""
        sums, self._sums = self._sums, {}
        self.own = sums
        if not sums:
            return {}
        device = sums["positions"].device
        flat = torch.cat([value.reshape(-1).to(device) for value in sums.values()])
        parts = reduce(flat).cpu().split([value.numel() for value in sums.values()])
        return {
            name: part.reshape(sums[name].shape) for name, part in zip(sums, parts, strict=True)
        }

    def broken(self, sums: Mapping[str, Tensor]) -> list[str]:
        """What was not finite: states by model and layer, or a term's loss."""
        norms: list[tuple[str, float]] = []
        for teacher, (pairs, depths) in self._teachers.items():
            before, called = (f"{teacher}/", f"teacher {teacher}") if teacher else ("", "teacher")
            for side, model in enumerate(("student", "teacher")):
                name = called if side else model
                key = f"{before}{model}_norm"
                values = sums[key].tolist() if key in sums else []
                norms += zip((f"{name} layer {p[side]}" for p in pairs), values, strict=False)
                if "last_norm" in sums:
                    last = sums["last_norm"][side].item()
                    norms.append((f"{model} layer {depths[side]}", last))
        found = [name for name, norm in norms if not math.isfinite(norm)]
        if not found:
            losses = (name for name in sums if name.startswith("loss/"))
            found = [name for name in losses if not sums[name].isfinite()]
        return list(dict.fromkeys(found))

    def metrics(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Supervised tokens, cosines, diagnostics and, where there are several, each term's loss.

        Cosines and diagnostics are means over positions; where there was none they are left out.
        """
        logged = {"supervised_tokens": sums["supervised"].item()}
        losses = [name for name in sums if name.startswith("loss/")]
        if len(losses) > 1:
            logged |= {name: sums[name].item() for name in losses}
        if "cosine" in sums and sums["positions"] > 0:
            (pairs, _), *_ = self._teachers.values()
            means = (sums["cosine"] / sums["positions"]).tolist()
            logged["rep_cosine"] = sum(means) / len(means)
            for pair, mean in zip(pairs, means, strict=True):
                logged[f"rep_cosine/layer_{pair.student:02d}"] = mean
        if len(self._teachers) > 1:
            logged |= self._of_each(sums)
        if "drift/count" in sums and sums["drift/count"] > 0:
            logged["drift_kl"] = (sums["drift/total"] / sums["drift/count"]).item()
        count = sums.get("diagnostics/count")
        if count is not None and count > 0:
            for name in sums:
                if name.startswith("diagnostics/") and name != "diagnostics/count":
                    logged[name] = (sums[name] / count).item()
        return logged

    def _of_each(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """Of several teachers: loss, cosine and share of the tokens, and the cosine of all."""
        found: dict[str, float] = {}
        tokens = sum(sums[f"{name}/tokens"].item() for name in self._teachers)
        cosines = positions = 0.0
        for name in self._teachers:
            count, own = sums[f"{name}/positions"].item(), sums.get(f"{name}/cosine")
            found[f"teacher/{name}/tokens_ratio"] = sums[f"{name}/tokens"].item() / max(tokens, 1)
            if (parts := sums[f"{name}/count"].item()) > 0:
                found[f"teacher/{name}/loss"] = sums[f"{name}/objective"].item() / parts
            if own is not None and count > 0:
                found[f"teacher/{name}/rep_cosine"] = own.mean().item() / count
                cosines, positions = cosines + own.mean().item(), positions + count
        return found | ({"rep_cosine": cosines / positions} if positions else {})


def layer_sums(result: LayersLoss) -> dict[str, Tensor]:
    """Norms by layer, and cosines where both models' states have one width."""
    sums = {"student_norm": result.student_norm, "teacher_norm": result.teacher_norm}
    return sums if result.cosine is None else {"cosine": result.cosine, **sums}


@torch.no_grad()
def last_sums(student: Tensor, teacher: Tensor) -> dict[str, Tensor]:
    """Norms of both models' last states, not finite where a state is not."""
    norms = [torch.linalg.vector_norm(rows.detach().float()) for rows in (student, teacher)]
    return {"last_norm": torch.stack([norm.to(norms[0].device) for norm in norms])}


@torch.no_grad()
def diagnostic_sums(pair: Pair) -> dict[str, Tensor]:
    """The paper's diagnostics, and the cosine of the last states where widths agree."""
    sums = output_diagnostics(pair, k=min(OVERLAP, pair.student_head.vocab_size))
    found = {f"diagnostics/{name}": value for name, value in sums._asdict().items()}
    found["diagnostics/top16_overlap"] = found.pop("diagnostics/topk_overlap")
    student, teacher = pair.student_rows, pair.teacher_rows
    if student.shape == teacher.shape:
        cosines = torch.cosine_similarity(student.float(), teacher.float())
        found["diagnostics/rep_cosine"] = cosines.sum()
    return found


def drift_sums(written: Tensor, now: Tensor) -> dict[str, Tensor]:
    """The drift, from the log-probabilities [M] when the rollouts were written and now.

    Tokens for which the former are not known, and NaN, are left out.
    """
    known = ~written.isnan()
    total, _ = drift(torch.where(known, written, now), now)
    return {"drift/total": total, "drift/count": known.sum().to(now)}
