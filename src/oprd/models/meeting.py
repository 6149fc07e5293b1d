"""One teacher and the student on one part of a micro-batch: rows that meet, and terms of them.

Letters: B sequences, K response tokens, N supervised rows, M response rows, D width.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import torch
from torch import Tensor, nn

from oprd.core.objective import Term
from oprd.core.output.chunked import sum_loss, sum_losses
from oprd.core.output.loss import OutputLoss
from oprd.core.output.pair import Pair, select_pair
from oprd.core.reduction import LossSum, Reduction, supervised_count
from oprd.core.states.comparison import PLAIN, LayerComparison
from oprd.core.states.loss import StateLoss, has_scale
from oprd.models.aligned import Aligned
from oprd.models.heads import lm_head
from oprd.models.metrics import diagnostic_sums, last_sums, layer_sums
from oprd.models.parts import Part
from oprd.models.reading import Reading
from oprd.models.teacher import Teacher

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig


class Needs(NamedTuple):
    """What the terms and the diagnostics of a step take from a forward pass.

    Attributes:
        states: the chosen layers at the supervised positions.
        last: the last layer at all response tokens, and the LM heads.
        representation: the factor of the representation term; 0 leaves it out.
        output: that of the output term.
        diagnose: whether the paper's diagnostics are measured.
        drift: whether the log-probabilities of the student's own tokens are.
    """

    states: bool
    last: bool
    representation: float
    output: float
    diagnose: bool = False
    drift: bool = False


@dataclass(frozen=True)
class Comparing:
    """By what a student and a teacher are compared.

    Attributes:
        settings: of a stage.
        state: the representation loss.
        output: the output-space loss, None where there is none.
        vocab_size: tokens that output terms compare: those that both models have.
        ends: tokens that end a response, which are one action to output terms; none, or several.
        aligned: how distributions over two vocabularies are compared; None for one vocabulary.
    """

    settings: "OPRDConfig"
    state: StateLoss
    output: OutputLoss | None
    vocab_size: int
    ends: tuple[int, ...] = ()
    aligned: Aligned | None = None

    @property
    def reduction(self) -> Reduction:
        """Over positions."""
        return cast(Reduction, self.settings.reduction)


class Met(NamedTuple):
    """What came of a meeting.

    Attributes:
        terms: of the objective.
        sums: by name, what adds up over micro-batches and processes.
        row_cosine: see `LayerComparison`.
        row_distance: likewise.
    """

    terms: list[Term]
    sums: dict[str, Tensor]
    row_cosine: Tensor | None
    row_distance: Tensor | None


class Meeting:
    """A teacher that has read its part of a micro-batch, and whom the student meets there.

    Args:
        by: what both are compared by.
        student: not wrapped, its weights materialised.
        part: of the micro-batch.
        teacher: whose states and distributions the student is pulled to.
        needs: what is computed.
    """

    def __init__(
        self, by: Comparing, student: nn.Module, part: Part, teacher: Teacher, needs: Needs
    ) -> None:
        self.part, self.needs, self._by, self._teacher = part, needs, by, teacher
        bridge = by.settings.bridge
        self._space = None if bridge is None else teacher.spaces[bridge]
        self._taught = teacher.read(
            student, part.batch, states=needs.states, last=needs.last, space=self._space
        )
        self._comparison = self._compare() if needs.states else None

    @property
    def layers(self) -> list[int]:
        """Of the student's, those that meet the teacher's."""
        return [pair.student for pair in self._teacher.pairs] if self._comparison else []

    def meet(self, layer: int, rows: Tensor) -> Tensor:
        """Compare a layer's rows [N, D] of the micro-batch, without a graph where no term is made.

        Args:
            layer: of the student; one of `layers`.
            rows: at the supervised positions of the whole micro-batch.
        """
        assert self._comparison is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.needs.representation > 0):
            rows = self.part.of_rows(rows)
            rows = rows if self._space is None else self._space.student(layer, rows)
            return self._comparison(layer, rows)

    def end(self, student: nn.Module, student_read: Reading) -> Met:
        """The terms, once the student has read.

        Args:
            student: see the class.
            student_read: what it read of the whole micro-batch.
        """
        by, needs, batch, comparison = self._by, self.needs, self.part.batch, self._comparison
        terms: list[Term] = []
        sums: dict[str, Tensor] = {}
        if comparison is not None:
            result = comparison.result()
            sums |= layer_sums(result)
            if needs.representation > 0:
                loss = result.loss._replace(count=batch.position_count)
                factor = needs.representation * distance_factor(by.settings)
                terms.append(Term("representation", factor, loss))
        if needs.last:
            assert student_read.last is not None and self._taught.reading.last is not None
            rows = self.part.of_written(student_read.last), self._taught.reading.last
            sums |= last_sums(*rows)
            if by.output is not None and needs.output > 0:
                total = self._output(by.output, student, rows)
                loss = LossSum(total, batch.response_count)
                terms.append(Term("output", needs.output, loss))
            if needs.diagnose:
                pair = self._pair(student, rows)
                sums |= diagnostic_sums(pair)
        sums |= {f"loss/{term.name}": term.mean.detach() for term in terms}
        if comparison is None:
            return Met(terms, sums, None, None)
        return Met(terms, sums, comparison.row_cosine, comparison.row_distance)

    def own_sums(self, met: Met) -> dict[str, Tensor]:
        """What one of several teachers logs of its own.

        Args:
            met: of `end`.
        """
        batch, taken = self.part.batch, ("cosine", "student_norm", "teacher_norm")
        device = batch.positions.device
        total = torch.zeros((), device=device)
        for term in met.terms:
            total = total + (term.weight * term.loss.total.detach()).to(device)
        return {
            "positions": batch.positions.sum(),
            "tokens": batch.response.sum(),
            "objective": total,
            "count": supervised_count(
                batch.positions if self.needs.representation > 0 else batch.response,
                self._by.reduction,
            ),
            **{name: met.sums[name] for name in taken if name in met.sums},
        }

    def _compare(self) -> LayerComparison:
        settings, space, teacher = self._by.settings, self._space, self._teacher
        states, pairs, losses = self._taught.reading.states, teacher.pairs, {}
        trains = self.needs.representation > 0
        if space is not None:
            states, pairs = space.by_student_layer(states), space.pairs
            if trains and (last := space.bridge.heads_layer) is not None:
                losses = {last: settings.state_through_heads}
        sizes = None
        if settings.scale == "layer":
            measured = teacher.mean_squares.get(settings.bridge or "", {})
            sizes = {layer: size for layer, size in measured.items() if layer not in losses}
        return LayerComparison(
            states,
            pairs,
            self.part.batch.positions,
            # Without a term, states meet for their cosines alone.
            self._by.state if trains else PLAIN,
            losses=losses,
            reduction=self._by.reduction,
            mean_squares=sizes,
            shares=self.part.shares,
            by_divergence=trains and settings.positions == "divergence",
        )

    def _output(self, loss: OutputLoss, student: nn.Module, rows: tuple[Tensor, Tensor]) -> Tensor:
        """The total of the output term."""
        by, part = self._by, self.part
        if by.aligned is None:
            return sum_loss(self._pair(student, rows), loss, by.reduction, part.shares).total
        assert self._taught.head is not None
        own = lm_head(student)
        heads = own, self._taught.head.to(own.weight.device)
        pairs = by.aligned.pairs(part.batch, rows, heads, by.settings.temperature)
        response = part.batch.response.to(heads[0].weight.device)
        return sum_losses(pairs, loss, by.reduction, response, part.shares).total

    def _pair(self, student: nn.Module, rows: tuple[Tensor, Tensor]) -> Pair:
        """Both models' last states and heads over the tokens that both have, on one device."""
        batch, by = self.part.batch, self._by
        assert self._taught.head is not None
        head = lm_head(student).cut(by.vocab_size)
        device = head.weight.device
        return select_pair(
            rows[0].to(device),
            rows[1].to(device),
            head,
            self._taught.head.cut(by.vocab_size).to(device),
            batch.response.to(device),
            by.settings.temperature,
            batch.response_ids.to(device),
            by.ends,
        )


def distance_factor(settings: "OPRDConfig") -> float:
    """What takes the size of an extrapolation out of a squared distance."""
    if settings.scale == "unit" or not has_scale(type(settings.state)):
        return 1.0
    return settings.extrapolation**-settings.extrapolation_power
