"""One update's micro-batch, from what both models read to the objective (Eq. 7), in reading order.

Letters: B sequences, K response tokens, N supervised rows, M response rows, D width.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oprd.core.bridge.space import BridgeSpace
from oprd.core.capture import Transform
from oprd.core.objective import Term, objective
from oprd.core.output.chunked import sum_loss
from oprd.core.output.drift import token_log_probs
from oprd.core.output.pair import Pair, select_pair
from oprd.core.reduction import Reduction
from oprd.core.states.comparison import PLAIN, LayerComparison
from oprd.core.states.loss import has_scale
from oprd.models.batch import MicroBatch
from oprd.models.heads import lm_head, whole
from oprd.models.matching import check_widths, common_vocabulary, same_width
from oprd.models.reader import Context
from oprd.models.reading import Reading, read
from oprd.models.teacher import Teacher, TeacherReading
from oprd.models.windowed import check_windows, read_windowed
from oprd.settings.run import OPRDConfig
from oprd.training.batch import supervised_window
from oprd.training.metrics import diagnostic_sums, drift_sums, last_sums, layer_sums


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


class Result(NamedTuple):
    """A micro-batch done.

    Attributes:
        objective: its share of the loss of the whole batch, with a graph to the student.
        sums: by name, what adds up over micro-batches and processes; see `StepStatistics`.
        row_cosine: [N], of the states at each supervised position, mean over layers; None where
            none were compared.
    """

    objective: Tensor
    sums: dict[str, Tensor]
    row_cosine: Tensor | None = None


def distance_factor(settings: OPRDConfig) -> float:
    """What takes the size of an extrapolation out of a squared distance."""
    if settings.scale == "unit" or not has_scale(type(settings.state)):
        return 1.0
    return settings.extrapolation**-settings.extrapolation_power


class Update:
    """What a stage of a run does with a micro-batch.

    Args:
        settings: which terms, with which factors.
        comparable: whether states of the two models have cosines. Where no term compares them,
            diagnostics do.
        vocab_size: tokens that output terms compare: those that both models have.
        ends: tokens that end a response, which are one action to output terms.
        autocast: entered while the student runs.
    """

    def __init__(
        self,
        settings: OPRDConfig,
        *,
        comparable: bool,
        vocab_size: int,
        ends: Sequence[int] = (),
        autocast: Context = nullcontext,
    ) -> None:
        self._settings = settings
        # One that the vocabularies do not have in common is no token to compare.
        known = tuple(end for end in ends if end < vocab_size)
        self._ends = known if len(known) > 1 else ()
        self._comparable, self._vocab_size, self._autocast = comparable, vocab_size, autocast
        self._weights, self._output = settings.weights, settings.output
        self._state = settings.state

    @classmethod
    def of(
        cls,
        settings: OPRDConfig,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        *,
        same_meaning: bool,
        ends: Sequence[int] = (),
        drifts: bool = False,
        diagnoses: bool = False,
        autocast: Context = nullcontext,
    ) -> "Update":
        """Check that the settings fit this pair of models.

        Args:
            settings: see `Update`.
            student: not wrapped.
            teacher: likewise; the student itself where its base serves both.
            same_meaning: whether their token ids are known to mean the same.
            ends: see `Update`.
            drifts: whether drift will be measured.
            diagnoses: whether diagnostics will be, whatever the settings say.
            autocast: see `Update`.

        Raises:
            ValueError: they do not; see `check_widths`, `common_vocabulary` and `check_windows`.
        """
        vocab_size = 0
        if not settings.prefix_gradients:
            check_windows(student)
        if settings.weights.representation.ever and settings.row_by_row:
            check_widths(student, teacher)
        if drifts:
            lm_head(student)
        if settings.reads_heads or diagnoses:
            vocab_size = common_vocabulary(student, teacher, same_meaning=same_meaning)
        if settings.output is not None:
            settings.output.check(vocab_size)
        comparable = settings.bridge is not None or same_width(student, teacher)
        return cls(
            settings, comparable=comparable, vocab_size=vocab_size, ends=ends, autocast=autocast
        )

    def needs(self, diagnose: bool = False, *, drift: bool = False, step: int = 0) -> Needs:
        """What a step has to bring.

        Args:
            diagnose: whether the paper's diagnostics are measured.
            drift: whether drift is.
            step: of the stage, from 0.
        """
        representation, output = (weight.at(step) for weight in self._weights)
        return Needs(
            states=representation > 0 or (diagnose and self._comparable),
            last=output > 0 or diagnose,
            representation=representation,
            output=output,
            diagnose=diagnose,
            drift=drift,
        )

    def __call__(
        self, student: nn.Module, batch: MicroBatch, teacher: Teacher, needs: Needs
    ) -> Result:
        """Let both models read, meet them, and sum the terms.

        Args:
            student: not wrapped, its weights materialised.
            batch: what it reads, and what is supervised.
            teacher: whose states and distributions it is pulled to.
            needs: what is computed, from the method of that name.
        """
        bridge = self._settings.bridge
        space = None if bridge is None else teacher.spaces[bridge]
        taught = teacher.read(student, batch, states=needs.states, last=needs.last, space=space)
        with self._autocast():
            comparison = None
            if needs.states:
                comparison = self._comparison(taught.reading, teacher, space, batch, needs)
            student_read = self._read(student, batch, teacher, space, comparison, needs)
            terms: list[Term] = []
            sums = {"positions": batch.positions.sum(), "supervised": batch.positions.sum()}
            if comparison is not None:
                result = comparison.result()
                sums |= layer_sums(result)
                if needs.representation > 0:
                    loss = result.loss._replace(count=batch.position_count)
                    factor = needs.representation * distance_factor(self._settings)
                    terms.append(Term("representation", factor, loss))
            if needs.last:
                pair = self._pair(student, student_read, taught, batch)
                sums |= last_sums(pair)
                if self._output is not None and needs.output > 0:
                    sums["supervised"] = batch.response.sum()
                    loss = sum_loss(pair, self._output, cast(Reduction, self._settings.reduction))
                    loss = loss._replace(count=batch.response_count)
                    terms.append(Term("output", needs.output, loss))
                if needs.diagnose:
                    sums |= diagnostic_sums(pair)
            sums |= {f"loss/{term.name}": term.mean.detach() for term in terms}
            if needs.drift:
                sums |= self._drift(student, student_read, batch)
            rows = None if comparison is None else comparison.row_cosine
            return Result(objective(terms), sums, rows)

    def _comparison(
        self,
        taught: Reading,
        teacher: Teacher,
        space: BridgeSpace | None,
        batch: MicroBatch,
        needs: Needs,
    ) -> LayerComparison:
        states, pairs, losses = taught.states, teacher.pairs, {}
        if space is not None:
            states, pairs = space.by_student_layer(states), space.pairs
            if needs.representation > 0 and (last := space.bridge.heads_layer) is not None:
                losses = {last: self._settings.state_through_heads}
        reduction = cast(Reduction, self._settings.reduction)
        sizes = None
        if self._settings.scale == "layer":
            measured = teacher.mean_squares.get(self._settings.bridge or "", {})
            sizes = {layer: size for layer, size in measured.items() if layer not in losses}
        return LayerComparison(
            states,
            pairs,
            batch.positions,
            # Without a term, states meet for their cosines alone.
            self._state if needs.representation > 0 else PLAIN,
            losses=losses,
            reduction=reduction,
            mean_squares=sizes,
        )

    def _read(
        self,
        student: nn.Module,
        batch: MicroBatch,
        teacher: Teacher,
        space: BridgeSpace | None,
        comparison: LayerComparison | None,
        needs: Needs,
    ) -> Reading:
        """The student's forward pass, in which each layer meets the teacher's rows."""
        layers = [pair.student for pair in teacher.pairs] if comparison is not None else []
        meet = None if comparison is None else self._meeting(comparison, space, needs)
        last = needs.last or needs.drift
        if self._settings.prefix_gradients or not torch.is_grad_enabled():
            return read(student, batch.view, layers, last=last, transform=meet)
        window = supervised_window(batch.view, self._settings)
        return read_windowed(student, batch.view, layers, window, last=last, transform=meet)

    def _meeting(
        self, comparison: LayerComparison, space: BridgeSpace | None, needs: Needs
    ) -> Transform:
        """The comparison, without a graph where no term is made of it."""
        project: Callable[[int, Tensor], Tensor] = (
            (lambda layer, rows: rows) if space is None else space.student
        )

        def meet(layer: int, rows: Tensor) -> Tensor:
            with torch.set_grad_enabled(torch.is_grad_enabled() and needs.representation > 0):
                return comparison(layer, project(layer, rows))

        return meet

    def _pair(
        self, student: nn.Module, student_read: Reading, taught: TeacherReading, batch: MicroBatch
    ) -> Pair:
        """Both models' last states and heads over the tokens that both have, on one device."""
        teacher_last = taught.reading.last
        assert student_read.last is not None and teacher_last is not None
        assert taught.head is not None
        head = lm_head(student).cut(self._vocab_size)
        device = head.weight.device
        return select_pair(
            student_read.last.to(device),
            teacher_last.to(device),
            head,
            taught.head.cut(self._vocab_size),
            batch.response.to(device),
            self._settings.temperature,
            batch.response_ids.to(device),
            self._ends,
        )

    def _drift(
        self, student: nn.Module, student_read: Reading, batch: MicroBatch
    ) -> dict[str, Tensor]:
        """How far the student has moved since the first update on these rollouts."""
        assert student_read.last is not None
        head = whole(lm_head(student))
        device = head.weight.device
        now = token_log_probs(
            student_read.last.to(device),
            head,
            batch.response.to(device),
            batch.response_ids.to(device),
            temperature=self._settings.temperature,
        )
        written = batch.kept.setdefault("log_probs", now)
        return drift_sums(written, now) if batch.use > 0 else {}
