"""The distance of two models' logits as a bridge between their last states.

    D²(h_S, h_T) = (z_S − z_T)ᵀ M (z_S − z_T),      z = W h + b,  M 1 = 0
                 = ‖P_S (h_S − µ_S) − P_T h_T‖² + c(h_T)

A shift that all logits share changes no distribution, nor D². With X = W_S, Y = [W_T, b_S − b_T]
and u = [h_T; −1] the difference of the logits is X h_S − Y u, so that

    A = Xᵀ M X = U Λ Uᵀ,   B = Xᵀ M W_T,   β = Xᵀ M (b_S − b_T)
    P_S = Λ^½ Uᵀ,   P_T = Λ^−½ Uᵀ B,   µ_S = −U Λ⁻¹ Uᵀ β,   µ_T = 0
    c(h_T) = uᵀ (Yᵀ M Y − [B β]ᵀ A⁺ [B β]) u

c is what the student's head cannot reach whatever its state. All metrics have one form,

    M = f (diag(π) − π πᵀ − Cov(q))

    centered:  f = 1,  π = 1/V,    without Cov     mean square of the centred difference
    prior:     f = ½,  π = E q,    without Cov     ½ of its variance under the mean distribution
    fisher:    f = ½,  π = E q,    q over rows     E of ½ its variance under q

q is the teacher's distribution on calibration rows. Under the last two D² is in nats: to second
order ½ Var_q(z_S − z_T) is KL(q‖p), and KL(p‖q); over rows, their mean for errors that do not
depend on the row. Wᵀ Cov(q) W is the rows' covariance of Wᵀ q: no matrix of V² is ever formed.

Letters: N rows, V vocabulary, S student width, H teacher width, R rank, C = S + H + 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.distributed as dist
from torch import Tensor

from oprd.core.output.head import LMHead, chunk_length, chunks

HeadsMetric = Literal["centered", "prior", "fisher"]
METRICS: tuple[str, ...] = get_args(HeadsMetric)


@dataclass(frozen=True, eq=False)
class HeadPair:
    """Both LM heads over the tokens that both models have: rows from 0 that mean the same.

    A softcap is left out of the distance, which compares logits before it, and counts in q.

    Attributes:
        student: [V, S], without a graph.
        teacher: [V, H], likewise.

    Raises:
        ValueError: a head has no tokens.
    """

    student: LMHead
    teacher: LMHead

    def __post_init__(self) -> None:
        vocab_size = min(self.student.vocab_size, self.teacher.vocab_size)
        if vocab_size == 0:
            raise ValueError("basis='heads' compares the logits of shared tokens: there are none.")
        for name in ("student", "teacher"):
            object.__setattr__(self, name, getattr(self, name).detach().cut(vocab_size))

    @property
    def vocab_size(self) -> int:
        """V, the tokens that both have."""
        return self.student.vocab_size

    @property
    def columns(self) -> int:
        """C, columns of the weights and the difference of biases side by side."""
        return self.student.width + self.teacher.width + 1

    @property
    def capped(self) -> bool:
        """Whether logits are compared before a softcap."""
        return self.student.softcap is not None or self.teacher.softcap is not None

    def tiles(self, device: torch.device) -> Iterator[tuple[slice, Tensor]]:
        """[v, C] float64 of [W_S, W_T, b_S − b_T], scales multiplied in, v tokens at a time."""
        student, teacher = self.student, self.teacher
        for part in chunks(self.vocab_size, self.columns):
            shape = part.stop - part.start, self.columns
            tile = torch.zeros(shape, dtype=torch.float64, device=device)
            tile[:, : student.width] = student.weight[part]
            tile[:, student.width : -1] = teacher.weight[part]
            tile[:, : student.width] *= student.scale
            tile[:, student.width : -1] *= teacher.scale
            for head, sign in ((student, 1), (teacher, -1)):
                if head.bias is not None:
                    tile[:, -1] += sign * head.scale * head.bias[part].to(tile)
            yield part, tile


class HeadMoments(NamedTuple):
    """Both heads under a metric, float64.

    Attributes:
        student: [S, S] A.
        cross: [S, H + 1] B and β.
        teacher: [H + 1, H + 1] Yᵀ M Y, for c; None where it was not asked for.
        size: Σ_v π_v ‖w_v‖² of the student's head, to tell rounding from A by.
    """

    student: Tensor
    cross: Tensor
    teacher: Tensor | None
    size: float


class HeadStatistics:
    """What a metric takes from calibration rows, and both heads' moments under it.

    Rows are read in float32, or in float64 where they are; sums are float64. Memory is V + C²
    numbers, and a few chunks of `oprd.core.output.head.CHUNK_ELEMENTS`.

    Args:
        heads: of both models.
        metric: `"centered"` needs no rows.
        every: read one row of so many, whatever batches they come in.
        device: where sums are kept; it must know float64.

    Attributes:
        count: rows that were read.

    Raises:
        ValueError: the metric is unknown, or `every` is not positive.
    """

    def __init__(
        self,
        heads: HeadPair,
        metric: HeadsMetric = "centered",
        *,
        every: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        if metric not in METRICS:
            raise ValueError(f"heads_metric must be one of {', '.join(METRICS)}, got {metric!r}.")
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}.")
        self.heads, self.metric, self._every = heads, metric, every
        self.device = torch.device(device)
        self.count = self._seen = 0
        self._waiting: list[Tensor] = []
        columns = heads.columns if metric == "fisher" else 0
        self._total = torch.zeros(heads.vocab_size, dtype=torch.float64, device=self.device)
        self._moment = torch.zeros(columns, columns, dtype=torch.float64, device=self.device)

    @torch.no_grad()
    def update(self, rows: Tensor) -> None:
        """Add teacher rows [N, H] of the last layer, after the final norm, all of them finite."""
        offset, self._seen = -self._seen % self._every, self._seen + len(rows)
        rows = rows[offset :: self._every]
        if self.metric == "centered" or len(rows) == 0:
            return
        rows = rows.to(self.heads.teacher.weight.device)
        self._waiting.append(rows.to(torch.promote_types(rows.dtype, torch.float32)).clone())
        self.count += len(rows)
        # Both heads are gone through for a chunk, however few rows it has.
        if sum(map(len, self._waiting)) >= chunk_length(self.heads.vocab_size):
            self._read()

    def _read(self) -> None:
        """Add up the rows that wait."""
        if not self._waiting:
            return
        rows, self._waiting = torch.cat(self._waiting), []
        for part in chunks(len(rows), self.heads.vocab_size):
            logits = rows.new_empty(part.stop - part.start, self.heads.vocab_size)
            self.heads.teacher.logits(rows[part], out=logits)
            # In float64 and from here on exactly: where a teacher is nearly certain, diag(π) and
            # E[q qᵀ] agree in most of their digits.
            q = logits.to(self.device, torch.float64).softmax(dim=1)
            self._total += q.sum(dim=0)
            if self.metric == "fisher":
                mean = self._through_heads(q)
                self._moment.addmm_(mean.T, mean)

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merge the sums of all processes."""
        self._read()
        count = torch.tensor(self.count, device=self.device)
        for total in (count, self._total, self._moment):
            if total.numel():
                dist.all_reduce(total, group=group)
        self.count = int(count)

    def tensors(self) -> dict[str, Tensor]:
        """Copies of the sums by name, and of the rows that wait, to go on from."""
        counts = torch.tensor([self.count, self._seen], dtype=torch.int64)
        sums = {"total": self._total.clone(), "moment": self._moment.clone()}
        none = self._total.new_zeros(0, self.heads.teacher.width)
        return {**sums, "counts": counts, "waiting": torch.cat(self._waiting or [none]).clone()}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave.

        Raises:
            ValueError: they are of other heads or of another metric.
        """
        # Any number of rows may wait.
        shapes, found = (
            {name: tuple(tensor.shape)[name == "waiting" :] for name, tensor in of.items()}
            for of in (self.tensors(), tensors)
        )
        if found != shapes:
            raise ValueError(f"the state of both heads should hold {shapes}, but holds {found}.")
        self._total.copy_(tensors["total"])
        self._moment.copy_(tensors["moment"])
        self.count, self._seen = tensors["counts"].tolist()
        waiting = tensors["waiting"].to(self.heads.teacher.weight.device)
        self._waiting = [waiting] if len(waiting) else []

    @torch.no_grad()
    def moments(self, *, unreachable: bool = False) -> HeadMoments:
        """Both heads' moments.

        Args:
            unreachable: also the teacher's, V (H + 1)² multiplications more, which c needs.

        Raises:
            ValueError: the metric needs rows, and there are none; a head is not finite.
        """
        self._read()
        width = self.heads.student.width
        prior, factor = self._prior()
        mean = torch.zeros(self.heads.columns, dtype=torch.float64, device=self.device)
        for part, tile in self.heads.tiles(self.device):
            mean += prior[part] @ tile
        both = torch.zeros(width, self.heads.columns, dtype=torch.float64, device=self.device)
        own = self.heads.columns - width if unreachable else 0
        teacher = torch.zeros(own, own, dtype=torch.float64, device=self.device)
        for part, tile in self.heads.tiles(self.device):
            tile -= mean
            tile *= prior[part, None].sqrt()
            both.addmm_(tile[:, :width].T, tile)
            if unreachable:
                teacher.addmm_(tile[:, width:].T, tile[:, width:])
        if not torch.isfinite(both).all():
            raise ValueError("LM heads with weights or biases that are not finite give no bridge.")
        size = float(both[:, :width].trace() + mean[:width] @ mean[:width])
        if self.metric == "fisher":
            covariance = (self._moment / self.count).addr_(mean, mean, alpha=-1)
            both -= covariance[:width]
            if unreachable:
                teacher -= covariance[width:, width:]
        both *= factor
        teacher *= factor
        return HeadMoments(both[:, :width], both[:, width:], teacher if unreachable else None, size)

    def _prior(self) -> tuple[Tensor, float]:
        """π [V] and f."""
        if self.metric == "centered":
            return torch.full_like(self._total, 1 / self.heads.vocab_size), 1.0
        if self.count == 0:
            raise ValueError(
                f"heads_metric={self.metric!r} weighs tokens by the teacher's distributions on "
                "calibration rows, and there are none: add prompts, or take 'centered'."
            )
        return self._total / self.count, 0.5

    def _through_heads(self, q: Tensor) -> Tensor:
        """[N, C] of q [N, V]."""
        found = q.new_zeros(len(q), self.heads.columns)
        for part, tile in self.heads.tiles(self.device):
            found.addmm_(q[:, part], tile)
        return found


class HeadsSolution(NamedTuple):
    """A bridge between the last states, at full rank, float64.

    Attributes:
        student_projection: [R, S] P_S.
        student_mean: [S] µ_S.
        teacher_projection: [R, H] P_T.
        unreachable: [H + 1, H + 1] c as a quadratic form of [h_T; −1]; None where moments lack it.
    """

    student_projection: Tensor
    student_mean: Tensor
    teacher_projection: Tensor
    unreachable: Tensor | None


def solve_heads(moments: HeadMoments, second_moment: Tensor | None = None) -> HeadsSolution:
    """P_S, µ_S and P_T of both heads' moments.

    Any rotation of the shared space is as good at full rank. The first directions are those in
    which the student's states are largest in the metric, by the eigenvectors of P_S E[h hᵀ] P_Sᵀ.

    Args:
        moments: of `HeadStatistics`.
        second_moment: [S, S] E[h hᵀ] of student rows; the identity stands in for it.

    Raises:
        ValueError: the metric tells no tokens apart.
    """
    values, vectors = torch.linalg.eigh((moments.student + moments.student.T) / 2)
    kept = values > moments.size * len(values) * torch.finfo(values.dtype).eps
    if not kept.any():
        raise ValueError(
            "the student's LM head gives all tokens the same logit in this metric, or the teacher "
            "is certain at every row: take another heads_metric, or another basis."
        )
    roots, directions = values[kept].sqrt()[:, None], vectors[:, kept].T
    student = roots * directions
    if second_moment is not None:
        spread = student @ second_moment @ student.T
        order = torch.linalg.eigh((spread + spread.T) / 2)[1].T.flip(0)
    else:
        order = torch.eye(len(roots), dtype=roots.dtype, device=roots.device).flip(0)
    reached = directions @ moments.cross / roots
    teacher = moments.teacher
    unreachable = None if teacher is None else teacher - reached.T @ reached
    mean = -(directions.T / roots.T) @ reached[:, -1]
    return HeadsSolution(order @ student, mean, order @ reached[:, :-1], unreachable)
