"""Streamed second-order statistics of paired rows: what every bridge is solved from.

For rows x, y of a pair, with n rows seen so far:

    µ = 1/n Σ x        scatter = Σ (x − µ)(x − µ)ᵀ        cross = Σ (x − µ_x)(y − µ_y)ᵀ

A block b of rows is centred on its own mean before it is multiplied and is then merged (Chan et
al.), so that a mean far from zero costs no precision and there is no shift to choose:

    scatter += scatter_b + n n_b / (n + n_b) · δδᵀ,        δ = µ_b − µ

Letters: N rows, P pairs, U distinct teacher layers, S student width, H teacher width.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from oprd.core.layers import LayerPair

# Rows that are centred and multiplied at once, which bounds the float64 copies.
BLOCK_ROWS = 4096


class NonFiniteRowError(ValueError):
    """A row with a NaN or an infinity.

    Attributes:
        source: `"student"`, `"teacher"` or `"teacher gradient"`.
        layer: the layer's number in its own model.
        row: the row's index in the update that was refused.
    """

    def __init__(self, source: str, layer: int, row: int):
        self.source, self.layer, self.row = source, layer, row
        super().__init__(
            f"{source} row {row} of layer {layer} holds a NaN or an infinity: nothing of this "
            "update was added."
        )


class PairStatistics:
    """Counts, means, scatters and cross scatters of all pairs, float64.

    A teacher layer that several student layers are paired with is kept, and multiplied, once.

    Attributes:
        pairs: the layer pairs.
        teacher_layers: [U] the distinct teacher layers in the order in which pairs name them.
        teacher_index: [P] each pair's place among them.
        count: the rows seen.
        gradient_count: the rows seen with a teacher gradient.
        student_mean, student_scatter: [P, S] and [P, S, S].
        teacher_mean, teacher_scatter: [U, H] and [U, H, H].
        cross: [P, S, H].
        gradient_moment: [U, H, H] Σ g gᵀ, not centred; None before the first gradient.
    """

    def __init__(
        self,
        pairs: Sequence[LayerPair],
        student_dim: int,
        teacher_dim: int,
        device: torch.device | str = "cpu",
        products: torch.dtype = torch.float64,
    ):
        self.pairs = tuple(pairs)
        self.teacher_layers = tuple(dict.fromkeys(pair.teacher for pair in self.pairs))
        self.teacher_index = tuple(self.teacher_layers.index(pair.teacher) for pair in self.pairs)
        self.device, self.products = torch.device(device), products
        self.count = self.gradient_count = 0

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=self.device)

        num_pairs, num_teacher = len(self.pairs), len(self.teacher_layers)
        self.student_mean = zeros(num_pairs, student_dim)
        self.student_scatter = zeros(num_pairs, student_dim, student_dim)
        self.teacher_mean = zeros(num_teacher, teacher_dim)
        self.teacher_scatter = zeros(num_teacher, teacher_dim, teacher_dim)
        self.cross = zeros(num_pairs, student_dim, teacher_dim)
        self.gradient_moment: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The sums by name, the gradients' only once there are any."""
        named = {
            "student_mean": self.student_mean,
            "student_scatter": self.student_scatter,
            "teacher_mean": self.teacher_mean,
            "teacher_scatter": self.teacher_scatter,
            "cross": self.cross,
        }
        if self.gradient_moment is not None:
            named["gradient_moment"] = self.gradient_moment
        return named

    def start_gradients(self) -> Tensor:
        """The sum of g gᵀ, zero if there was none."""
        if self.gradient_moment is None:
            self.gradient_moment = torch.zeros_like(self.teacher_scatter)
        return self.gradient_moment

    @torch.no_grad()
    def update(
        self,
        student: Mapping[int, Tensor],
        teacher: Mapping[int, Tensor],
        gradients: Mapping[int, Tensor] | None,
    ) -> None:
        """Add rows whose shapes are known to fit.

        Args:
            student: rows [N, S] by student layer.
            teacher: rows [N, H] by teacher layer.
            gradients: rows [N, H] by teacher layer, or None.

        Raises:
            NonFiniteRowError: a row holds a NaN or an infinity; then nothing is added.
        """
        student_rows = [student[pair.student] for pair in self.pairs]
        teacher_rows = [teacher[layer] for layer in self.teacher_layers]
        gradient_rows = [] if gradients is None else [gradients[u] for u in self.teacher_layers]
        rows = student_rows[0].shape[0]
        if rows == 0:
            return
        student_mean = self._means(student_rows)
        teacher_mean = self._means(teacher_rows)
        _check_finite("student", [p.student for p in self.pairs], student_rows, student_mean)
        _check_finite("teacher", self.teacher_layers, teacher_rows, teacher_mean)
        if gradient_rows:
            means = self._means(gradient_rows)
            _check_finite("teacher gradient", self.teacher_layers, gradient_rows, means)
        for start in range(0, rows, BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            for u in range(len(self.teacher_layers)):
                y = self._centred(teacher_rows[u][block], teacher_mean[u])
                self._add_product(self.teacher_scatter[u], y, y)
                for p in (p for p, index in enumerate(self.teacher_index) if index == u):
                    x = self._centred(student_rows[p][block], student_mean[p])
                    self._add_product(self.student_scatter[p], x, x)
                    self._add_product(self.cross[p], x, y)
            for u, layer_rows in enumerate(gradient_rows):
                # Never in float32: gradients are small enough for their squares to underflow.
                g = layer_rows[block].to(self.device, torch.float64)
                self.start_gradients()[u].addmm_(g.T, g)
        self._merge_means(rows, student_mean, teacher_mean)
        self.gradient_count += rows if gradient_rows else 0

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merge over processes: afterwards each holds the statistics of all rows.

        Every process moves its scatters to the common mean, then they add up. A process without
        rows adds zeros.
        """
        counts = torch.tensor(
            [self.count, self.gradient_count], dtype=torch.int64, device=self.device
        )
        dist.all_reduce(counts, group=group)
        total, total_gradients = counts.tolist()
        if total_gradients:
            dist.all_reduce(self.start_gradients(), group=group)
        if total:
            local = self.count, self.student_mean, self.teacher_mean
            self.student_mean = _global_mean(self.student_mean, self.count, total, group)
            self.teacher_mean = _global_mean(self.teacher_mean, self.count, total, group)
            self._add_outer(local[1] - self.student_mean, local[2] - self.teacher_mean, local[0])
            for scatter in (self.student_scatter, self.teacher_scatter, self.cross):
                dist.all_reduce(scatter, group=group)
        self.count, self.gradient_count = total, total_gradients

    def _means(self, rows: Sequence[Tensor]) -> Tensor:
        means = [layer.mean(dim=0, dtype=torch.float64) for layer in rows]
        return torch.stack([mean.to(self.device) for mean in means])

    def _centred(self, rows: Tensor, mean: Tensor) -> Tensor:
        return (rows.to(self.device) - mean).to(self.products)

    def _add_product(self, total: Tensor, left: Tensor, right: Tensor) -> None:
        if self.products == total.dtype:
            total.addmm_(left.T, right)
        else:
            total.add_(left.T @ right)

    def _merge_means(self, rows: int, student_mean: Tensor, teacher_mean: Tensor) -> None:
        student_delta = student_mean - self.student_mean
        teacher_delta = teacher_mean - self.teacher_mean
        total = self.count + rows
        self._add_outer(student_delta, teacher_delta, self.count * rows / total)
        self.student_mean += student_delta * (rows / total)
        self.teacher_mean += teacher_delta * (rows / total)
        self.count = total

    def _add_outer(self, student: Tensor, teacher: Tensor, weight: float) -> None:
        paired = teacher[list(self.teacher_index)]
        for total, left, right in (
            (self.student_scatter, student, student),
            (self.teacher_scatter, teacher, teacher),
            (self.cross, student, paired),
        ):
            total.baddbmm_(left[:, :, None], right[:, None, :], alpha=weight)


def _global_mean(mean: Tensor, count: int, total: int, group: dist.ProcessGroup | None) -> Tensor:
    merged = mean * (count / total)
    dist.all_reduce(merged, group=group)
    return merged


def _check_finite(
    source: str, layers: Sequence[int], rows: Sequence[Tensor], means: Tensor
) -> None:
    # The mean is needed anyhow, and it is finite unless a row is not (or float64 overflowed).
    if torch.isfinite(means).all():
        return
    for layer, layer_rows in zip(layers, rows, strict=True):
        bad = ~torch.isfinite(layer_rows).all(dim=1)
        if bad.any():
            raise NonFiniteRowError(source, layer, int(bad.nonzero()[0]))
    raise ValueError(f"{source} rows are finite, but their mean overflows float64.")
