"""The fitted bridge: two linear maps per layer pair into one space of R dimensions (Eqs. 12–15).

    student:  P_S (h_S − µ_S)        teacher:  P_T (h_T − µ_T)

Letters: P pairs, S student width, H teacher width, R rank of a pair, C components of a pair.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from oprd.core.bridge.bases import HEADS, joined
from oprd.core.bridge.check import (
    check_shapes,
    checked_bases,
    checked_pairs,
    checked_provenance,
    checked_rank,
)
from oprd.core.bridge.file import BridgeContents, read_bridge, write_bridge
from oprd.core.layers import LayerPair


@dataclass(frozen=True, eq=False)
class PairFit:
    """How well one layer pair could be fitted, on the rows of the fit.

    There are C = H components; of LM heads as many as the student's head can tell apart.

    Attributes:
        eigenvalues: [C] float64, λ_i: the sample variance of teacher component i, also beyond the
            rank; under `"pca"` the eigenvalues of the sample covariance. Under `"heads"` its mean
            square, because zero means something there.
        r_squared: [C] float64, ρ_i²: the share of λ_i that the student predicts.
        cosine: E⟨s, t⟩ / √(E‖s‖² E‖t‖²) of projected rows s and t, one number for all rows and not
            the mean of the rows' cosines, which `oprd.core.bridge.score` measures.
        explained_variance: Σ_{i≤r} λ_i / Σ_i λ_i.
        ridge: of the regression, relative to the student's mean variance; 0 under `"heads"`.
        unreachable: under `"heads"` the mean of c, the part of D² that the student's head cannot
            reach; None where it was not measured.
    """

    eigenvalues: Tensor
    r_squared: Tensor
    cosine: float
    explained_variance: float
    ridge: float
    unreachable: float | None = None


class Bridge(nn.Module):
    """Frozen projections of both models' states, by the student's layer number.

    The maps are buffers that move and cast with the model that holds them, and are left out of its
    `state_dict`: a bridge has a file of its own.

    Attributes:
        student_projection: [ΣR, S] P_S, one pair's rows after another's.
        student_mean: [P, S] µ_S, zero for `center=False`.
        teacher_projection: [ΣR, H] P_T.
        teacher_mean: [P, H] µ_T.
        pairs: the layer pairs.
        ranks: R of each pair.
        bases: of each pair, see `oprd.core.bridge.bases`.
        statistics: `PairFit` by student layer.
        rows: how many rows it was fitted on.
        center: whether the student's mean was removed.
        heads_metric: of the pair whose basis is `"heads"`, None where there is none.
        provenance: what the rows came from, or None.
    """

    student_projection: Tensor
    student_mean: Tensor
    teacher_projection: Tensor
    teacher_mean: Tensor

    def __init__(
        self,
        pairs: Sequence[LayerPair | tuple[int, int]],
        *,
        student_projection: Sequence[Tensor] | Tensor,
        student_mean: Sequence[Tensor] | Tensor,
        teacher_projection: Sequence[Tensor] | Tensor,
        teacher_mean: Sequence[Tensor] | Tensor,
        statistics: Sequence[PairFit],
        rows: int,
        basis: str | Sequence[str] = "pca",
        center: bool = True,
        heads_metric: str | None = None,
        provenance: Mapping[str, Any] | None = None,
    ):
        """Put a bridge together; `BridgeFitter.solve` does it from rows.

        Args:
            pairs: see the attributes, as what is not listed here.
            student_projection: [R, S] of each pair.
            student_mean: [S] of each pair.
            teacher_projection: [R, H] of each pair.
            teacher_mean: [H] of each pair.
            statistics: of each pair.
            rows: how many it was fitted on.
            basis: of all pairs, or of each.
            center: whether the student's mean was removed.
            heads_metric: of the pair of LM heads.
            provenance: what the rows came from.

        Raises:
            ValueError: shapes do not fit each other, a rank is above a width, there is not one
                statistic per pair, the bases are unknown or ask for LM heads below the last pair,
                or the provenance is nothing that JSON can hold.
        """
        super().__init__()
        self.pairs = checked_pairs(pairs)
        self.rows, self.center = rows, bool(center)
        self.bases = checked_bases(basis, self.pairs, heads_metric)
        self.heads_metric = heads_metric
        self.provenance = checked_provenance(provenance)
        tensors = {
            "student_projection": list(student_projection),
            "teacher_projection": list(teacher_projection),
            "student_mean": list(student_mean),
            "teacher_mean": list(teacher_mean),
        }
        check_shapes(len(self.pairs), tensors)
        for name, of in tensors.items():
            joint = torch.stack(of) if name.endswith("mean") else torch.cat(of)
            self.register_buffer(name, joint.detach(), persistent=False)
        self.ranks = tuple(len(rows) for rows in tensors["student_projection"])
        for rank, pair_basis in zip(self.ranks, self.bases, strict=True):
            checked_rank(rank, self.student_dim, self.teacher_dim, pair_basis)
        if len(statistics) != len(self.pairs):
            raise ValueError(f"{len(self.pairs)} pairs need as many statistics: {len(statistics)}.")
        self._place = {pair.student: place for place, pair in enumerate(self.pairs)}
        self.statistics = dict(zip(self._place, statistics, strict=True))

    @property
    def rank(self) -> int:
        """R of the pairs that were fitted; of LM heads where there are no others."""
        fitted = [r for r, basis in zip(self.ranks, self.bases, strict=True) if basis != HEADS]
        return max(fitted or self.ranks)

    @property
    def basis(self) -> str:
        """A name in `oprd.core.bridge.bases.CHOICES`."""
        return joined(self.bases)

    @property
    def heads_layer(self) -> int | None:
        """The student's layer that meets the teacher's through both LM heads, if there is one."""
        return self.pairs[self.bases.index(HEADS)].student if HEADS in self.bases else None

    @property
    def student_projections(self) -> tuple[Tensor, ...]:
        """[R, S] P_S of each pair."""
        return self.student_projection.split(self.ranks)

    @property
    def teacher_projections(self) -> tuple[Tensor, ...]:
        """[R, H] P_T of each pair."""
        return self.teacher_projection.split(self.ranks)

    def _rows(self, place: int) -> slice:
        """Of both projections, which a pair has."""
        return slice(sum(self.ranks[:place]), sum(self.ranks[: place + 1]))

    @property
    def student_dim(self) -> int:
        """S, the width of the student's states."""
        return self.student_projection.shape[1]

    @property
    def teacher_dim(self) -> int:
        """H, the width of the teacher's states."""
        return self.teacher_projection.shape[1]

    def rank_of(self, layer: int) -> int:
        """R of the pair of a student's layer; a ValueError where it is in none."""
        return self.ranks[self.place_of(layer)]

    def project_student(self, layer: int, h: Tensor) -> Tensor:
        """P_S (h − µ_S), with a graph to h.

        Args:
            layer: the student's layer number.
            h: [..., S] states, floating.

        Returns:
            [..., R] float32 (float64 for float64 states).

        Raises:
            ValueError: the layer is not in the bridge, or h is not S wide.
        """
        place = self.place_of(layer)
        projection = self.student_projection[self._rows(place)]
        return _project("student", h, projection, self.student_mean[place])

    def project_teacher(self, layer: int, h: Tensor) -> Tensor:
        """sg(P_T (h − µ_T)), without a graph.

        Args:
            layer: the number of the STUDENT's layer that the teacher's is paired with.
            h: [..., H] states, floating.

        Returns:
            [..., R] float32 (float64 for float64 states).

        Raises:
            ValueError: the layer is not in the bridge, or h is not H wide.
        """
        place = self.place_of(layer)
        projection, mean = self.teacher_projection[self._rows(place)], self.teacher_mean[place]
        return _project("teacher", h.detach(), projection, mean)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the bridge as one safetensors file, whole or not at all.

        Raises:
            ValueError: the bridge holds a NaN or an infinity.
            OSError: the folder does not exist or cannot be written, or the path is not a file's.
        """
        fits = list(self.statistics.values())
        contents = BridgeContents(
            pairs=self.pairs,
            tensors={
                "student_projection": self.student_projection,
                "student_mean": self.student_mean,
                "teacher_projection": self.teacher_projection,
                "teacher_mean": self.teacher_mean,
                "eigenvalues": torch.cat([fit.eigenvalues for fit in fits]),
                "r_squared": torch.cat([fit.r_squared for fit in fits]),
            },
            rank=self.ranks,
            components=[len(fit.eigenvalues) for fit in fits],
            rows=self.rows,
            basis=self.bases,
            heads_metric=self.heads_metric,
            center=self.center,
            ridge=[fit.ridge for fit in fits],
            cosine=[fit.cosine for fit in fits],
            explained_variance=[fit.explained_variance for fit in fits],
            unreachable=[fit.unreachable for fit in fits],
            provenance=self.provenance,
        )
        write_bridge(path, contents)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a bridge, on the CPU, checking everything; nothing is ever unpickled.

        Warns:
            UserWarning: the file does not say which models it was fitted on.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no bridge, of another format version, damaged, or does not fit
                its own header.
        """
        contents = read_bridge(path)
        tensors, components = contents.tensors, list(contents.components)
        statistics = [
            PairFit(*fit)
            for fit in zip(
                tensors["eigenvalues"].split(components),
                tensors["r_squared"].split(components),
                contents.cosine,
                contents.explained_variance,
                contents.ridge,
                contents.unreachable,
                strict=True,
            )
        ]
        ranks = list(contents.rank)
        return cls(
            contents.pairs,
            student_projection=tensors["student_projection"].split(ranks),
            student_mean=tensors["student_mean"],
            teacher_projection=tensors["teacher_projection"].split(ranks),
            teacher_mean=tensors["teacher_mean"],
            statistics=statistics,
            rows=contents.rows,
            basis=contents.basis,
            center=contents.center,
            heads_metric=contents.heads_metric,
            provenance=contents.provenance,
        )

    def extra_repr(self) -> str:
        """What `print` shows."""
        return (
            f"rank={self.rank}, pairs={len(self.pairs)}, student_dim={self.student_dim}, "
            f"teacher_dim={self.teacher_dim}, basis={self.basis!r}, rows={self.rows}"
        )

    def place_of(self, layer: int) -> int:
        """Which pair, from 0, is that of a student's layer; a ValueError where none is."""
        if layer not in self._place:
            raise ValueError(
                f"student layer {layer} is not in this bridge, which holds {sorted(self._place)}."
            )
        return self._place[layer]


def _project(source: str, h: Tensor, projection: Tensor, mean: Tensor) -> Tensor:
    if h.ndim == 0 or h.shape[-1] != projection.shape[1]:
        raise ValueError(
            f"this bridge takes {source} states of width {projection.shape[1]}, "
            f"got shape {tuple(h.shape)}."
        )
    dtype = torch.promote_types(h.dtype, torch.float32)
    # Autocast would round the projections to bfloat16, and folding the mean into a bias would
    # cancel most of its digits where it is large.
    with torch.autocast(h.device.type, enabled=False):
        return functional.linear(
            h.to(dtype) - mean.to(h.device, dtype), projection.to(h.device, dtype)
        )
