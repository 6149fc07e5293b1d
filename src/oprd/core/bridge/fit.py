"""Fitting a bridge: one pass over rows, then any number of exact solves (Eqs. 12–13).

Letters: N rows, P pairs, S student width, H teacher width, R rank.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from oprd.core.bridge.assemble import assemble
from oprd.core.bridge.bases import HEADS, below_heads, by_pair, last_pair
from oprd.core.bridge.bridge import Bridge
from oprd.core.bridge.check import (
    checked_pairs,
    checked_provenance,
    checked_rank,
    checked_rows,
    checked_width,
)
from oprd.core.bridge.heads import HeadStatistics
from oprd.core.bridge.solutions import (
    HeadsFit,
    check_varied,
    solve_last_pair,
    solve_pairs,
    teacher_directions,
)
from oprd.core.bridge.solve import (
    Directions,
    PairSolution,
)
from oprd.core.bridge.state import fit_state, restore
from oprd.core.bridge.statistics import PairStatistics
from oprd.core.layers import LayerPair


class BridgeFitter:
    """Streams paired rows into float64 statistics and solves bridges from them.

    Memory depends on layers and widths, never on rows: P (S² + S H) + U H² numbers of 8 bytes for
    U distinct teacher layers, and about as many again while solutions are kept.

    Attributes:
        pairs: the layer pairs.
        student_dim: S.
        teacher_dim: H.
        sums: the statistics so far.
        heads: what is known of both LM heads, for `basis="heads"`.
    """

    def __init__(
        self,
        pairs: Sequence[LayerPair | tuple[int, int]],
        student_dim: int,
        teacher_dim: int,
        *,
        device: torch.device | str = "cpu",
        products: torch.dtype = torch.float64,
        heads: HeadStatistics | None = None,
    ):
        """Allocate the sums.

        Args:
            pairs: (student layer, teacher layer); each student layer once, a teacher layer any
                number of times.
            student_dim: width of the student's states.
            teacher_dim: width of the teacher's states.
            device: where sums are kept and rows are moved to.
            products: dtype in which centred blocks are multiplied before they are added in
                float64: `torch.float64`, or `torch.float32` on devices where that is much faster,
                at a relative error near 1e-6 in the moments.
            heads: of both models, fed with the rows of the deepest pair, which must be their last.

        Raises:
            ValueError: there is no pair, a pair or a width is not valid, a student layer repeats,
                or `products` is neither of the two.
        """
        self.pairs = checked_pairs(pairs)
        self.student_dim = checked_width("student_dim", student_dim)
        self.teacher_dim = checked_width("teacher_dim", teacher_dim)
        if products not in (torch.float32, torch.float64):
            raise ValueError(f"products must be torch.float32 or torch.float64, got {products}.")
        self.sums = PairStatistics(self.pairs, student_dim, teacher_dim, device, products)
        self.heads = heads
        self._reduced = False
        self._forget_solutions()

    @property
    def rows(self) -> int:
        """The rows seen: by this process, or by all of them after `all_reduce`."""
        return self.sums.count

    def update(
        self,
        student: Mapping[int, Tensor],
        teacher: Mapping[int, Tensor],
        *,
        teacher_gradients: Mapping[int, Tensor] | None = None,
    ) -> None:
        """Add rows: row n of every layer belongs to one position of one rollout.

        Args:
            student: rows [N, S] by student layer, floating, padding dropped; further layers are
                ignored.
            teacher: rows [N, H] by teacher layer, likewise.
            teacher_gradients: rows [N, H] by teacher layer of g = ∂ log q(y)/∂h with y ~ q, for
                `basis="fisher"`; may be left out of some updates.

        Raises:
            ValueError: a layer is missing, rows are not floating [N, width] of one number, or a
                row is not finite (`NonFiniteRowError`, with source, layer and row). Nothing is
                added then.
            RuntimeError: the statistics are already merged over processes.
        """
        if self._reduced:
            raise RuntimeError("update after all_reduce would count these rows on every process.")
        student_layers = [pair.student for pair in self.pairs]
        teacher_layers = self.sums.teacher_layers
        rows = checked_rows("student", student, student_layers, self.student_dim)
        count = checked_rows("teacher", teacher, teacher_layers, self.teacher_dim)
        if rows != count:
            raise ValueError(
                f"{rows} student rows meet {count} teacher rows: "
                "row n of both must be one position."
            )
        if teacher_gradients is not None:
            count = checked_rows(
                "teacher gradient", teacher_gradients, teacher_layers, self.teacher_dim
            )
            if rows != count:
                raise ValueError(f"{rows} rows meet {count} teacher gradient rows.")
        self._forget_solutions()
        self.sums.update(student, teacher, teacher_gradients)
        if self.heads is not None:
            self.heads.update(teacher[last_pair(self.pairs).teacher])

    def all_reduce(self, group: dist.ProcessGroup | None = None) -> None:
        """Merge the statistics of all processes, once, after the last update.

        Every process calls it, also one that has seen no rows. Without `torch.distributed`, or
        with one process, nothing happens.

        Raises:
            RuntimeError: it was called before, which would count every row again.
        """
        if not dist.is_available() or not dist.is_initialized() or dist.get_world_size(group) == 1:
            return
        if self._reduced:
            raise RuntimeError("all_reduce was called twice: rows would be counted again.")
        self._forget_solutions()
        self.sums.all_reduce(group)
        if self.heads is not None:
            self.heads.all_reduce(group)
        self._reduced = True

    def solve(
        self,
        rank: int,
        *,
        basis: str = "pca",
        heads_rank: int | None = None,
        center: bool = True,
        ridge: float | Mapping[int, float] = 1e-6,
        provenance: Mapping[str, Any] | None = None,
    ) -> Bridge:
        """The bridge of a rank.

        Another rank with the same options costs a copy, another ridge no eigendecomposition of the
        teacher.

        Args:
            rank: R, from 1 to the smaller width, and to what the rows determine; not of LM heads.
            basis: a name in `oprd.core.bridge.bases.CHOICES`. `"heads"` needs no regression, see
                `oprd.core.bridge.heads`; the others choose the teacher's directions: `"pca"`
                (Eq. 12, those of most variance), `"rrr"` (those of most variance that the student
                predicts) or `"fisher"` (those of most gradient E[g gᵀ], scaled by the root of its
                eigenvalues: ‖P_T Δh‖² approximates Δhᵀ E[g gᵀ] Δh, twice the KL divergence that a
                small Δh causes).
            heads_rank: R of the LM heads' pair; None for all that the student's can tell apart.
            center: also remove the student's mean; False is Eq. 13 to the letter.
            ridge: of the regression, relative to the student's mean variance: one for all layers,
                or by student layer, as `oprd.core.bridge.ridge.choose_ridge` finds them. The
                default only keeps the solve well posed.
            provenance: what the rows came from, kept in the bridge's file: a mapping that JSON can
                hold.

        Raises:
            ValueError: an option is not valid, a rank is not supported, the student of a layer
                is constant, `"fisher"` has no gradients, or LM heads are not known.
        """
        bases = by_pair(basis, self.pairs)
        if below_heads(basis) is not None:
            checked_rank(rank, self.student_dim, self.teacher_dim)
        provenance, ridges = checked_provenance(provenance), self._ridges(ridge)
        solutions = self._solve_all(basis, center, ridges)
        ranks = [rank] * len(bases)
        if HEADS in bases:
            place = bases.index(HEADS)
            ranks[place] = solutions[place].supported if heads_rank is None else heads_rank
        for r, pair, solution, of in zip(ranks, self.pairs, solutions, bases, strict=True):
            if 1 <= r <= solution.supported:
                continue
            if of == HEADS:
                raise ValueError(
                    f"heads_rank {r} is not within 1 to {solution.supported}, the directions that "
                    "the student's LM head tells apart: leave it out, or lower it."
                )
            raise ValueError(
                f"rank {r} at student layer {pair.student} and teacher layer {pair.teacher}:"
                f" {self.rows} rows determine {solution.supported} directions of basis"
                f" {of!r}. Add rows, or lower the rank."
            )
        return assemble(
            self.sums,
            solutions,
            bases,
            ranks,
            ridges,
            center=center,
            heads=self._solve_heads() if HEADS in bases else None,
            provenance=provenance,
        )

    def highest_rank(
        self,
        *,
        basis: str = "pca",
        center: bool = True,
        ridge: float | Mapping[int, float] = 1e-6,
    ) -> int:
        """The highest rank that `solve` gives with these options; 0 if none. Not of LM heads.

        Raises:
            ValueError: as `solve`.
        """
        solutions = self._solve_all(basis, center, self._ridges(ridge))
        of_pairs = zip(by_pair(basis, self.pairs), solutions, strict=True)
        fitted = [solution.supported for of, solution in of_pairs if of != HEADS]
        return min(fitted or [solution.supported for solution in solutions])

    def state_dict(self) -> dict[str, Tensor]:
        """A copy of the statistics so far, tensors only, to resume the fit from."""
        state = fit_state(self.sums, self._reduced)
        heads = {} if self.heads is None else self.heads.tensors()
        return {**state, **{f"{HEADS}.{name}": tensor for name, tensor in heads.items()}}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from the statistics of `state_dict`.

        Raises:
            ValueError: the state is of other pairs, widths or heads, or incomplete. Nothing is
                loaded then.
        """
        own = {n.removeprefix(f"{HEADS}."): t for n, t in state.items() if n.startswith(HEADS)}
        state = {name: t for name, t in state.items() if not name.startswith(HEADS)}
        fresh = PairStatistics(
            self.pairs, self.student_dim, self.teacher_dim, self.sums.device, self.sums.products
        )
        reduced = restore(fresh, state)
        if self.heads is not None or own:
            if self.heads is None:
                raise ValueError("the fit's state is of LM heads, which this fit does not read.")
            self.heads.restore(own)
        self._reduced = reduced
        self.sums = fresh
        self._forget_solutions()

    def _forget_solutions(self) -> None:
        # Eigenvectors by basis, for other ridges; and the last solution, for other ranks.
        self._directions: dict[str, list[Directions]] = {}
        self._solved: tuple[tuple[Any, ...], list[PairSolution]] | None = None
        self._of_heads: HeadsFit | None = None

    def _ridges(self, ridge: float | Mapping[int, float]) -> tuple[float, ...]:
        layers = [pair.student for pair in self.pairs]
        if isinstance(ridge, Mapping):
            if set(ridge) != set(layers):
                raise ValueError(f"ridge must name student layers {layers}, got {sorted(ridge)}.")
            ridges = tuple(float(ridge[layer]) for layer in layers)
        else:
            ridges = (float(ridge),) * len(layers)
        for value in ridges:
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"ridge must be 0 or more and finite, got {value}.")
        return ridges

    def _solve_all(self, basis: str, center: bool, ridges: tuple[float, ...]) -> list[PairSolution]:
        bases, lower = by_pair(basis, self.pairs), below_heads(basis)
        if lower is None:
            return [self._solve_heads().solution]
        if self.rows < 2:
            raise ValueError(f"a fit needs rows, got {self.rows}: call update first.")
        key = (basis, bool(center), ridges)
        if self._solved is None or self._solved[0] != key:
            check_varied(self.sums)
            if lower not in self._directions:
                self._directions[lower] = teacher_directions(self.sums, lower)
            places = [p for p, of in enumerate(bases) if of != HEADS]
            found = solve_pairs(self.sums, places, self._directions[lower], center, ridges)
            by_place = dict(zip(places, found, strict=True))
            solutions = [
                self._solve_heads().solution if of == HEADS else by_place[p]
                for p, of in enumerate(bases)
            ]
            self._solved = (key, solutions)
        return self._solved[1]

    def _solve_heads(self) -> HeadsFit:
        if self.heads is None:
            raise ValueError('basis="heads" needs both LM heads: BridgeFitter(..., heads=...).')
        if self._of_heads is None:
            place = self.pairs.index(last_pair(self.pairs))
            self._of_heads = solve_last_pair(self.sums, self.heads, place)
        return self._of_heads
