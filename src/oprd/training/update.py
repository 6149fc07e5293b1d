"""What a micro-batch adds to the objective (Eq. 7), and what it shows.

Letters: B sequences, K response tokens, L layers, N supervised rows, M response rows, D width.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel

from oprd.core.bridge.space import BridgeSpace
from oprd.core.capture import Transform
from oprd.core.layers import LayerPair
from oprd.core.objective import Term, objective
from oprd.core.output.chunked import sum_loss
from oprd.core.output.drift import token_log_probs
from oprd.core.output.head import LMHead
from oprd.core.output.pair import Pair, select_pair
from oprd.core.reduction import Reduction
from oprd.core.states.comparison import LayerComparison
from oprd.models.heads import lm_head, whole
from oprd.models.matching import check_widths, common_vocabulary, same_width
from oprd.models.reading import Reading, read
from oprd.models.windowed import check_windows, read_windowed
from oprd.training.batch import MicroBatch, supervised_window
from oprd.training.config import OPRDConfig
from oprd.training.metrics import diagnostic_sums, last_sums, layer_sums


class Needs(NamedTuple):
    """What the terms and the diagnostics of a step take from a forward pass.

    Attributes:
        states: the chosen layers at the supervised positions.
        last: the last layer at all response tokens, and the LM heads.
        diagnose: whether the paper's diagnostics are measured.
        drift: whether the log-probabilities of the student's own tokens are.
    """

    states: bool
    last: bool
    diagnose: bool = False
    drift: bool = False

    def covered_by(self, other: "Needs") -> bool:
        """Whether a teacher that was read for `other` brings all of this."""
        return self.states <= other.states and self.last <= other.last


class Result(NamedTuple):
    """A micro-batch done.

    Attributes:
        objective: its share of the loss of the whole batch, with a graph to the student.
        sums: by name, what adds up over micro-batches and processes; see `StepStatistics`.
        log_probs: [M], of the response tokens under the student, if needed.
    """

    objective: Tensor
    sums: dict[str, Tensor]
    log_probs: Tensor | None = None


class Update:
    """The student's side of a micro-batch: its forward pass, and the terms that meet there.

    Args:
        args: which terms, with which factors.
        pairs: which layers meet.
        comparable: whether states of the two models can be compared. Where no term compares them,
            diagnostics do.
        vocab_size: tokens that output terms compare: those that both models have.
    """

    def __init__(
        self, args: OPRDConfig, pairs: Sequence[LayerPair], *, comparable: bool, vocab_size: int
    ) -> None:
        self._args = args
        self._pairs = pairs
        self._comparable = comparable
        self._vocab_size = vocab_size
        self._state, self._output = args.state, args.output
        self._space: BridgeSpace | None = None

    @classmethod
    def bind(
        cls,
        args: OPRDConfig,
        pairs: Sequence[LayerPair],
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        accelerator: Accelerator,
        *,
        same_meaning: bool,
    ) -> "Update":
        """Check that the settings fit this pair of models.

        Args:
            args: see `Update`.
            pairs: see `Update`.
            student: not wrapped.
            teacher: likewise; the student itself where its base serves both.
            accelerator: what will place them.
            same_meaning: whether their token ids are known to mean the same.

        Raises:
            ValueError: they do not; see `check_widths`, `common_vocabulary` and `check_windows`.
        """
        vocab_size = 0
        if not args.prefix_gradients:
            check_windows(student)
        bridged = args.bridge is not None
        if args.representation_weight > 0 and not bridged and args.state.equal_widths:
            check_widths(student, teacher)
        if args.reads_heads or args.updates_per_rollout > 1:
            _check_heads_stand_whole(accelerator)
            lm_head(student)
        if args.reads_heads:
            vocab_size = common_vocabulary(student, teacher, same_meaning=same_meaning)
            if args.output is not None:
                args.output.check(vocab_size)
        comparable = bridged or same_width(student, teacher) or not args.state.equal_widths
        return cls(args, pairs, comparable=comparable, vocab_size=vocab_size)

    def enter(self, spaces: Mapping[str, BridgeSpace]) -> None:
        """Compare states in the space of the settings' bridge, if they name one."""
        self._space = spaces[self._args.bridge] if self._args.bridge is not None else None

    @property
    def teacher_transform(self) -> Transform | None:
        """What becomes of the teacher's rows as it reaches its layers."""
        return None if self._space is None else self._space.teacher

    def needs(self, diagnose: bool = False, *, drift: bool = False) -> Needs:
        """What a step has to bring, with or without diagnostics and a measurement of drift."""
        return Needs(
            states=self._args.representation_weight > 0 or (diagnose and self._comparable),
            last=self._output is not None or diagnose,
            diagnose=diagnose,
            drift=drift,
        )

    def __call__(
        self,
        student: nn.Module,
        batch: MicroBatch,
        teacher: Reading,
        teacher_head: LMHead | None,
        needs: Needs,
    ) -> Result:
        """Run the student and compare.

        Args:
            student: not wrapped, its weights materialised.
            batch: what it reads.
            teacher: what the teacher read of the same batch; its states are used up.
            teacher_head: its LM head, where `needs` says `last`.
            needs: what is computed, from the method of that name.
        """
        comparison = self._comparison(teacher, batch) if needs.states else None
        layers = [pair.student for pair in self._pairs] if needs.states else []
        compared = self._comparing(comparison) if comparison is not None else None
        last = needs.last or needs.drift
        if self._args.prefix_gradients or not torch.is_grad_enabled():
            student_read = read(student, batch.view, layers, last=last, transform=compared)
        else:
            window = supervised_window(batch.view, self._args)
            student_read = read_windowed(
                student, batch.view, layers, window, last=last, transform=compared
            )
        terms: list[Term] = []
        sums = {"positions": batch.positions.sum(), "supervised": batch.positions.sum()}
        if comparison is not None:
            result = comparison.result()
            sums |= layer_sums(result)
            if (weight := self._args.representation_weight) > 0:
                loss = result.loss._replace(count=batch.position_count)
                terms.append(Term("representation", weight, loss))
        if needs.last:
            assert teacher_head is not None
            pair = self._output_pair(student, student_read, teacher, teacher_head, batch)
            sums |= last_sums(pair)
            if self._output is not None:
                sums["supervised"] = batch.response.sum()
                loss = sum_loss(pair, self._output, cast(Reduction, self._args.reduction))
                loss = loss._replace(count=batch.response_count)
                terms.append(Term("output", self._args.output_weight, loss))
            if needs.diagnose:
                sums |= diagnostic_sums(pair)
        sums |= {f"loss/{term.name}": term.mean.detach() for term in terms}
        log_probs = self._log_probs(student, student_read, batch) if needs.drift else None
        return Result(objective(terms), sums, log_probs)

    def _comparison(self, teacher: Reading, batch: MicroBatch) -> LayerComparison:
        states, pairs = teacher.states, self._pairs
        if self._space is not None:
            states, pairs = self._space.by_student_layer(states), self._space.pairs
        return LayerComparison(
            states,
            pairs,
            batch.positions,
            self._state,
            reduction=cast(Reduction, self._args.reduction),
        )

    def _comparing(self, comparison: LayerComparison) -> Transform:
        """The comparison, without a graph where no term is made of it."""

        def compare(layer: int, rows: Tensor) -> Tensor:
            with torch.set_grad_enabled(
                torch.is_grad_enabled() and self._args.representation_weight > 0
            ):
                if self._space is not None:
                    rows = self._space.student(layer, rows)
                return comparison(layer, rows)

        return compare

    def _log_probs(self, student: nn.Module, student_read: Reading, batch: MicroBatch) -> Tensor:
        assert student_read.last is not None
        head = whole(lm_head(student))
        device = head.weight.device
        return token_log_probs(
            student_read.last.to(device),
            head,
            batch.response.to(device),
            batch.response_ids.to(device),
            temperature=self._args.temperature,
        )

    def _output_pair(
        self,
        student: nn.Module,
        student_read: Reading,
        teacher: Reading,
        teacher_head: LMHead,
        batch: MicroBatch,
    ) -> Pair:
        """Both models' last states and heads over the tokens that both have, on one device."""
        assert student_read.last is not None and teacher.last is not None
        head = lm_head(student).cut(self._vocab_size)
        device = head.weight.device
        return select_pair(
            student_read.last.to(device),
            teacher.last.to(device),
            head,
            teacher_head.cut(self._vocab_size),
            batch.response.to(device),
            self._args.temperature,
            batch.response_ids.to(device),
        )


def _check_heads_stand_whole(accelerator: Accelerator) -> None:
    """Refuse output terms where the LM heads' weights are not there to be read."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    zero3 = plugin is not None and plugin.zero_stage == 3
    fsdp = getattr(accelerator.state, "fsdp_plugin", None) is not None
    if zero3 or (fsdp and not accelerator.is_fsdp2):
        raise ValueError(
            "output_loss, diagnostics_steps and updates_per_rollout read LM heads' weights, which "
            f"{'DeepSpeed ZeRO-3' if zero3 else 'FSDP 1'} keeps in pieces: use FSDP2 or DeepSpeed "
            "ZeRO-2, or leave them out."
        )
