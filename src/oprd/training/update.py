"""One update's micro-batch, from what both models read to the objective (Eq. 7), in reading order.

Letters: B sequences, K response tokens, N supervised rows, M response rows, D width.
"""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from oprd.core.objective import Term, objective
from oprd.core.output.drift import token_log_probs
from oprd.models.aligned import Aligned
from oprd.models.batch import MicroBatch
from oprd.models.heads import lm_head, whole
from oprd.models.matching import check_widths, common_vocabulary, same_width
from oprd.models.meeting import Comparing, Meeting, Needs
from oprd.models.metrics import drift_sums
from oprd.models.parts import Part
from oprd.models.reader import Context
from oprd.models.reading import Reading, read
from oprd.models.teacher import Teacher
from oprd.models.windowed import check_windows, read_windowed
from oprd.rollouts.counts import supervised_window
from oprd.settings.run import OPRDConfig


class Result(NamedTuple):
    """A micro-batch done.

    Attributes:
        objective: its share of the loss of the whole batch, with a graph to the student.
        sums: by name, what adds up over micro-batches and processes; see `StepStatistics`.
        row_cosine: [N], of the states at each supervised position, mean over layers; None where
            none were compared.
        row_distance: [N], likewise of their losses.
        log_probs: [M], of the tokens that the student drew, as it is now; None where its drift is
            not measured.
    """

    objective: Tensor
    sums: dict[str, Tensor]
    row_cosine: Tensor | None = None
    row_distance: Tensor | None = None
    log_probs: Tensor | None = None


class Update:
    """What a stage of a run does with a micro-batch.

    Args:
        settings: which terms, with which factors.
        comparable: whether states of the two models have cosines. Where no term compares them,
            diagnostics do.
        vocab_size: tokens that output terms compare: those that both models have.
        ends: tokens that end a response, which are one action to output terms.
        aligned: how distributions over two vocabularies are compared; None for one vocabulary.
        autocast: entered while the student runs.
    """

    def __init__(
        self,
        settings: OPRDConfig,
        *,
        comparable: bool,
        vocab_size: int,
        ends: Sequence[int] = (),
        aligned: Aligned | None = None,
        autocast: Context = nullcontext,
    ) -> None:
        # One that the vocabularies do not have in common is no token to compare.
        known = tuple(end for end in ends if end < vocab_size)
        known = known if len(known) > 1 else ()
        self._settings, self._comparable, self._autocast = settings, comparable, autocast
        self._weights = settings.weights
        self._by = Comparing(settings, settings.state, settings.output, vocab_size, known, aligned)

    @classmethod
    def of(
        cls,
        settings: OPRDConfig,
        student: PreTrainedModel,
        teacher: PreTrainedModel,
        *,
        same_meaning: bool,
        ends: Sequence[int] = (),
        aligned: Aligned | None = None,
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
            aligned: likewise.
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
            check_widths(student, teacher, may_fit=settings.may_fit)
        if drifts:
            lm_head(student)
        if aligned is not None:
            vocab_size = aligned.classes.met.count
        elif settings.reads_heads or diagnoses:
            vocab_size = common_vocabulary(student, teacher, same_meaning=same_meaning)
        if settings.output is not None:
            settings.output.check(vocab_size)
        comparable = settings.bridge is not None or same_width(student, teacher)
        return cls(
            settings,
            comparable=comparable,
            vocab_size=vocab_size,
            ends=ends,
            aligned=aligned,
            autocast=autocast,
        )

    @property
    def aligned(self) -> Aligned | None:
        """How distributions over two vocabularies are compared; None for one vocabulary."""
        return self._by.aligned

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
        return self.meet(student, batch, {"": self.begin(student, Part(batch), teacher, needs)})

    def begin(self, student: nn.Module, part: Part, teacher: Teacher, needs: Needs) -> Meeting:
        """Let a teacher read its part of a micro-batch; see `__call__`."""
        return Meeting(self._by, student, part, teacher, needs)

    def meet(
        self, student: nn.Module, batch: MicroBatch, meetings: Mapping[str, Meeting]
    ) -> Result:
        """Let the student read, which meets every teacher on the way, and sum the terms of all.

        Args:
            student: see `__call__`.
            batch: the whole micro-batch.
            meetings: by the teacher's name; what each logs of its own is named so where there are
                several.
        """
        drift = any(meeting.needs.drift for meeting in meetings.values())
        with self._autocast():
            student_read = self._read(student, batch, list(meetings.values()), drift=drift)
            sums = {"positions": batch.positions.sum(), "supervised": batch.positions.sum()}
            terms: list[Term] = []
            rows = distances = None
            for name, meeting in meetings.items():
                met = meeting.end(student, student_read)
                terms += met.terms
                found = met.sums
                if len(meetings) > 1:
                    own = meeting.own_sums(met)
                    sums |= {f"{name}/{own_name}": value for own_name, value in own.items()}
                    found = {n: value for n, value in found.items() if n not in own}
                for key, value in found.items():
                    sums[key] = sums[key] + value if key in sums else value
                rows = meeting.part.add_rows(rows, met.row_cosine)
                distances = meeting.part.add_rows(distances, met.row_distance)
            if any(term.name == "output" for term in terms):
                sums["supervised"] = batch.response.sum()
            now = None
            if drift:
                now, found = self._drift(student, student_read, batch)
                sums |= found
            return Result(objective(terms), sums, rows, distances, now)

    def _read(
        self, student: nn.Module, batch: MicroBatch, meetings: Sequence[Meeting], *, drift: bool
    ) -> Reading:
        """The student's forward pass, in which each layer meets the teachers' rows."""
        (first, *others), met = meetings, [set(meeting.layers) for meeting in meetings]
        layers = first.layers if not others else sorted(set().union(*met))
        last = drift or any(meeting.needs.last for meeting in meetings)

        def meet(layer: int, rows: Tensor) -> Tensor:
            here = (m for m, own in zip(meetings, met, strict=True) if layer in own)
            totals = [meeting.meet(layer, rows) for meeting in here]
            return totals[0] if len(totals) == 1 else torch.stack(totals).sum()

        transform = meet if layers else None
        if self._settings.prefix_gradients or not torch.is_grad_enabled():
            return read(student, batch.view, layers, last=last, transform=transform)
        window = supervised_window(batch.view, self._settings)
        return read_windowed(student, batch.view, layers, window, last=last, transform=transform)

    def _drift(
        self, student: nn.Module, student_read: Reading, batch: MicroBatch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """How likely its own tokens [M] are to the student, and how far it has moved.

        That is since it wrote them where it is known how likely they were then, and otherwise since
        the first update on them.
        """
        assert student_read.last is not None
        head = whole(lm_head(student))
        device, own, rows = head.weight.device, batch.own, student_read.last
        if own is not batch.response:
            rows = rows[own[batch.response].to(rows.device)]
        now = token_log_probs(
            rows.to(device),
            head,
            own.to(device),
            batch.response_ids.to(device),
            temperature=self._settings.temperature,
        )
        written, told = batch.kept.get("log_probs"), batch.written_log_probs
        if written is None:
            told = torch.full_like(own, torch.nan, dtype=now.dtype) if told is None else told
            written = told[own].to(now)
        sums = {}
        if batch.use > 0 or batch.written_log_probs is not None:
            sums = drift_sums(written, now)
        batch.kept["log_probs"] = torch.where(written.isnan(), now, written)
        return now, sums
