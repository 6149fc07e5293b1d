"""How well a bridge carries the rows that were held out, at every rank.

Letters: P pairs, N rows, R rank, S student width.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor
from torch.nn import functional

from oprd.calibration.reading import PairedRows
from oprd.core.bridge import Bridge
from oprd.core.bridge.bases import last_pair
from oprd.core.bridge.heads import HeadPair
from oprd.core.bridge.pull import Pull, pull
from oprd.core.bridge.score import PairScore, score_rows
from oprd.core.layers import LayerPair

SEED = 0
# Of one process at which both heads are read: each costs three rows of logits.
MOST_READ = 2048


class Reader(Protocol):
    """What gives the rows of a batch: a `RowReader`, or rows that are kept."""

    @property
    def device(self) -> torch.device:
        """Where the student's rows are."""
        ...

    def __call__(self, batch: Any) -> PairedRows:
        """The rows of a batch of any kind that has a length."""
        ...


@dataclass(frozen=True)
class HeldOutScores:
    """Scores by student layer, over the rows of all processes.

    Attributes:
        before: with a random P_S in the place of the fitted one, as training it would begin.
        after: of the highest rank that the rows determine; `PairScore.at` gives the lower ones.
        states: the mean cosine of the states themselves; None where their widths differ.
        pull: of the last pair; None where LM heads are not there to be read.
        carried: the share of the teacher's probability on tokens that both vocabularies have, where
            these are two.
    """

    before: Mapping[int, PairScore]
    after: Mapping[int, PairScore]
    states: Mapping[int, float] | None
    pull: Pull | None = None
    carried: float | None = None

    @property
    def rows(self) -> int:
        """How many rows were scored."""
        return next(iter(self.after.values())).rows


def score_held_out(
    reader: Reader,
    bridge: Bridge,
    widest: Bridge,
    batches: Sequence[Sequence[Any]],
    advance: Callable[[int], None],
    heads: HeadPair | None = None,
    carried: Callable[[Tensor], float] | None = None,
) -> HeldOutScores:
    """Read this process's batches once more and score them; every process calls it.

    Args:
        reader: of both models' rows.
        bridge: the bridge of the rank asked for.
        widest: that of the highest rank; left on the models' device in float32.
        batches: of rollouts that the fit has not seen, as the reader takes them.
        advance: called with the number of rollouts that are done.
        heads: both LM heads, if the last pair's states are those that they read.
        carried: sums over rows of the teacher's probability on tokens that both vocabularies have.
    """
    random = _with_random_projection(bridge).to(reader.device, torch.float32)
    widest.to(reader.device, torch.float32)
    before, after = _no_scores(bridge), _no_scores(widest)
    comparable = bridge.student_dim == bridge.teacher_dim
    cosines = torch.zeros(len(bridge.pairs), dtype=torch.float64)
    last, drawn = last_pair(bridge.pairs), _Drawn(MOST_READ)
    for batch in batches:
        rows = reader(batch)
        for total, judged in ((before, random), (after, widest)):
            found = score_rows(judged, rows.student, rows.teacher)
            total |= {layer: total[layer] + score for layer, score in found.items()}
        if comparable:
            cosines += _state_cosines(bridge.pairs, rows)
        if heads is not None:
            drawn.add(rows.student[last.student], rows.teacher[last.teacher])
        advance(len(batch))
    before, after = _over_processes(before), _over_processes(after)
    pulled, common = Pull(0, 0.0, 0.0), 0.0
    if heads is not None and drawn.rows is not None:
        ours, theirs = drawn.rows
        pulled = pull(bridge, last.student, ours, theirs, heads)
        common = 0.0 if carried is None else carried(theirs)
    sums = torch.tensor([*pulled, common], dtype=torch.float64)
    cosines, of_all = _sum_over_processes([cosines, sums])
    count = next(iter(after.values())).rows
    layers = [pair.student for pair in bridge.pairs]
    states = dict(zip(layers, (cosines / max(count, 1)).tolist(), strict=True))
    read, *kl, common = of_all.tolist()
    pulled = None if heads is None else Pull(int(read), *kl)
    share = None if carried is None or not read else common / read
    return HeldOutScores(before, after, states if comparable else None, pulled, share)


class _Drawn:
    """At most so many rows of two models, each of all that are added as likely as any other.

    Batches come longest first: the first rows would be those of the longest responses alone.

    Args:
        most: how many.
    """

    def __init__(self, most: int) -> None:
        self.rows: tuple[Tensor, Tensor] | None = None
        self._most = most
        self._generator = torch.Generator().manual_seed(SEED)
        self._lots = torch.zeros(0)

    def add(self, student: Tensor, teacher: Tensor) -> None:
        """Add rows [N, S] and [N, H]."""
        lots = torch.rand(len(student), generator=self._generator)
        self._lots = torch.cat([self._lots, lots])
        ours, theirs = self.rows or (student[:0], teacher[:0])
        ours, theirs = torch.cat([ours, student]), torch.cat([theirs, teacher])
        kept = self._lots.argsort()[: self._most].sort().values
        self._lots, kept = self._lots[kept], kept.to(ours.device)
        self.rows = ours[kept], theirs[kept]


def _state_cosines(pairs: Sequence[LayerPair], rows: PairedRows) -> Tensor:
    """[P] sums over rows."""
    sums = [
        functional.cosine_similarity(
            rows.student[pair.student].float(), rows.teacher[pair.teacher].float(), dim=1
        ).sum()
        for pair in pairs
    ]
    return torch.stack(sums).double().cpu()


def _with_random_projection(bridge: Bridge) -> Bridge:
    """P_S as a linear layer starts out."""
    generator = torch.Generator().manual_seed(SEED)
    shape, bound = bridge.student_projection.shape, bridge.student_dim**-0.5
    drawn = torch.rand(shape, generator=generator, dtype=torch.float64).mul_(2).sub_(1)
    return Bridge(
        bridge.pairs,
        student_projection=(bound * drawn).to(bridge.student_projection).split(bridge.ranks),
        student_mean=bridge.student_mean,
        teacher_projection=bridge.teacher_projections,
        teacher_mean=bridge.teacher_mean,
        statistics=list(bridge.statistics.values()),
        rows=bridge.rows,
        basis=bridge.bases,
        center=bridge.center,
        heads_metric=bridge.heads_metric,
    )


def _no_scores(bridge: Bridge) -> dict[int, PairScore]:
    return {
        pair.student: PairScore(0, *(torch.zeros(rank, dtype=torch.float64) for _ in range(3)))
        for pair, rank in zip(bridge.pairs, bridge.ranks, strict=True)
    }


def _over_processes(scores: Mapping[int, PairScore]) -> dict[int, PairScore]:
    counts = torch.tensor([score.rows for score in scores.values()])
    parts = [torch.stack((s.cosine_sum, s.residual, s.total)) for s in scores.values()]
    counts, *parts = _sum_over_processes([counts, *parts])
    return {
        layer: PairScore(int(count), *part)
        for layer, count, part in zip(scores, counts, parts, strict=True)
    }


def _sum_over_processes(tensors: Sequence[Tensor]) -> list[Tensor]:
    state = PartialState()
    if state.num_processes == 1:
        return list(tensors)
    summed = reduce([tensor.to(state.device) for tensor in tensors], "sum")
    return [tensor.cpu() for tensor in cast(list[Tensor], summed)]
