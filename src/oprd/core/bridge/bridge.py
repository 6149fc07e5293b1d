"""The fitted bridge: two linear maps per layer pair into one space of R dimensions (Eqs. 12–15).

    student:  P_S (h_S − µ_S)        teacher:  P_T (h_T − µ_T)

Letters: P pairs, S student width, H teacher width, R rank.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from oprd.core.bridge.check import check_shapes, checked_pairs, checked_provenance, checked_rank
from oprd.core.bridge.file import BridgeContents, read_bridge, write_bridge
from oprd.core.layers import LayerPair


@dataclass(frozen=True, eq=False)
class PairFit:
    """How well one layer pair could be fitted, on the rows of the fit.

    Attributes:
        eigenvalues: [H] float64, λ_i: the sample variance of teacher component i, also beyond the
            rank; under `"pca"` the eigenvalues of the sample covariance.
        r_squared: [H] float64, ρ_i²: the share of λ_i that the student predicts.
        cosine: E⟨s, t⟩ / √(E‖s‖² E‖t‖²) of projected rows s and t, one number for all rows and not
            the mean of the rows' cosines, which `oprd.core.bridge.score` measures.
        explained_variance: Σ_{i≤r} λ_i / Σ_i λ_i.
        ridge: of the regression, relative to the student's mean variance.
    """

    eigenvalues: Tensor
    r_squared: Tensor
    cosine: float
    explained_variance: float
    ridge: float


class Bridge(nn.Module):
    """Frozen projections of both models' states, by the student's layer number.

    The maps are buffers that move and cast with the model that holds them, and are left out of its
    `state_dict`: a bridge has a file of its own.

    Attributes:
        student_projection: [P, R, S] P_S.
        student_mean: [P, S] µ_S, zero for `center=False`.
        teacher_projection: [P, R, H] P_T.
        teacher_mean: [P, H] µ_T.
        pairs: the layer pairs.
        statistics: `PairFit` by student layer.
        rows: how many rows it was fitted on.
        basis: `"pca"`, `"rrr"` or `"fisher"`.
        center: whether the student's mean was removed.
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
        student_projection: Tensor,
        student_mean: Tensor,
        teacher_projection: Tensor,
        teacher_mean: Tensor,
        statistics: Sequence[PairFit],
        rows: int,
        basis: str = "pca",
        center: bool = True,
        provenance: Mapping[str, Any] | None = None,
    ):
        """Put a bridge together; `BridgeFitter.solve` does it from rows.

        Raises:
            ValueError: shapes do not fit each other, the rank is above a width, there is not one
                statistic per pair, or the provenance is nothing that JSON can hold.
        """
        super().__init__()
        self.pairs = checked_pairs(pairs)
        self.rows, self.basis, self.center = rows, basis, bool(center)
        self.provenance = checked_provenance(provenance)
        tensors = {
            "student_projection": student_projection,
            "student_mean": student_mean,
            "teacher_projection": teacher_projection,
            "teacher_mean": teacher_mean,
        }
        check_shapes(len(self.pairs), tensors)
        for name, tensor in tensors.items():
            self.register_buffer(name, tensor.detach(), persistent=False)
        checked_rank(self.rank, self.student_dim, self.teacher_dim)
        if len(statistics) != len(self.pairs):
            raise ValueError(f"{len(self.pairs)} pairs need as many statistics: {len(statistics)}.")
        student_layers = [pair.student for pair in self.pairs]
        self.statistics = dict(zip(student_layers, statistics, strict=True))
        self._place = {layer: place for place, layer in enumerate(student_layers)}

    @property
    def rank(self) -> int:
        """R, the dimensions of the shared space."""
        return self.student_projection.shape[1]

    @property
    def student_dim(self) -> int:
        """S, the width of the student's states."""
        return self.student_projection.shape[2]

    @property
    def teacher_dim(self) -> int:
        """H, the width of the teacher's states."""
        return self.teacher_projection.shape[2]

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
        place = self._placed(layer)
        return _project("student", h, self.student_projection[place], self.student_mean[place])

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
        place = self._placed(layer)
        projection, mean = self.teacher_projection[place], self.teacher_mean[place]
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
                "eigenvalues": torch.stack([fit.eigenvalues for fit in fits]),
                "r_squared": torch.stack([fit.r_squared for fit in fits]),
            },
            rows=self.rows,
            basis=self.basis,
            center=self.center,
            ridge=[fit.ridge for fit in fits],
            cosine=[fit.cosine for fit in fits],
            explained_variance=[fit.explained_variance for fit in fits],
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
        tensors = dict(contents.tensors)
        spectra = tensors.pop("eigenvalues"), tensors.pop("r_squared")
        statistics = [
            PairFit(*fit)
            for fit in zip(
                *spectra,
                contents.cosine,
                contents.explained_variance,
                contents.ridge,
                strict=True,
            )
        ]
        return cls(
            contents.pairs,
            **tensors,
            statistics=statistics,
            rows=contents.rows,
            basis=contents.basis,
            center=contents.center,
            provenance=contents.provenance,
        )

    def extra_repr(self) -> str:
        """What `print` shows."""
        return (
            f"rank={self.rank}, pairs={len(self.pairs)}, student_dim={self.student_dim}, "
            f"teacher_dim={self.teacher_dim}, basis={self.basis!r}, rows={self.rows}"
        )

    def _placed(self, layer: int) -> int:
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
