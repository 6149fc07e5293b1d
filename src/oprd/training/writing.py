"""Who writes the rollouts of a batch: the student, the teacher first, or another in its place."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from oprd.models.finite import first_broken_parameter
from oprd.models.reading import context_length
from oprd.models.rollout_engine import check_completions
from oprd.rollouts.leaving import leaving_ended
from oprd.rollouts.prefix import Drawn, begun_by_teacher, teacher_writes, write_begun
from oprd.rollouts.recorded import Recorder
from oprd.rollouts.written import Rollout
from oprd.training.teachers.team import Member

if TYPE_CHECKING:
    from oprd.training.trainer import OPRDTrainer

# Prompts, and what else TRL hands to its engine, to responses.
Draw = Callable[..., list[list[int]]]


class Writer:
    """Writes what a trainer's batches are made of.

    Args:
        trainer: whose student writes; its teachers are there.
        draw: TRL's way to write with the student, by `generate` or an engine.
        teacher: who begins responses, where the settings say so.

    Attributes:
        rows: of the dataset, those whose rollouts are written.
    """

    def __init__(self, trainer: "OPRDTrainer", draw: Draw, teacher: Member) -> None:
        self._trainer, self._draw, self._teacher = trainer, draw, teacher
        self.rows: Sequence[Mapping[str, Any]] = []

    def write_ahead(self, prompt_ids: list[list[int]], fields: Any) -> None:
        """Write the rollouts of several steps, which `next` hands out.

        Args:
            prompt_ids: of all, in the order of their turns.
            fields: of TRL's, beside the prompts.
        """
        self._trainer.rollouts.origins.ahead.keep(self.write(prompt_ids, None, fields))

    def next(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> list[Rollout]:
        """The rollouts of a batch: written now, or those that wait for their turn.

        Raises:
            FloatingPointError: the student's weights are not finite.
        """
        trains, origins = self._trainer.student.training, self._trainer.rollouts.origins
        if trains and self._trainer.args.rollouts_ahead > 1:
            found = origins.ahead.take(prompt_ids)
        else:
            found = self.write(prompt_ids, *args, **kwargs)
        origins.trains = trains
        if trains:
            origins.batch = found
        return found

    def write(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> list[Rollout]:
        """Rollouts of a student whose weights are finite, of which the teacher may begin some.

        Raises:
            FloatingPointError: the student's weights are not finite.
        """
        student = self._trainer.student
        try:
            if student.training and self._trainer.args.teacher_prefix is not None:
                return self._write_begun(prompt_ids)
            drawn = self._student_writes(prompt_ids, None, *args, **kwargs)
            return [
                Rollout(asked, ids, log_probs=log_probs)
                for asked, (ids, log_probs) in zip(prompt_ids, drawn, strict=True)
            ]
        except RuntimeError as error:
            if broken := first_broken_parameter(student):
                raise FloatingPointError(
                    f"the student's {broken} is not finite before step {self._step + 1}."
                ) from error
            raise

    def _write_begun(self, prompt_ids: list[list[int]]) -> list[Rollout]:
        """Responses of which the teacher begins some."""
        trainer, member = self._trainer, self._teacher
        args, accelerator, ends = trainer.args, trainer.accelerator, trainer.eos_token_ids
        processes = accelerator.process_index, accelerator.num_processes

        def begin(places: list[int], limit: int) -> list[list[int]]:
            own = member.prompts.batch([self.rows[place] for place in places])
            # Of several prompts of a teacher the first is the one that it writes to.
            asked = [prompt_ids[p] for p in places] if own is None else [ids[0] for ids in own]
            reader, config = member.teacher.reader, trainer.generation_config
            device = accelerator.device
            return teacher_writes(reader, trainer.student, asked, config, limit, ends, device)

        return write_begun(
            prompt_ids,
            begun_by_teacher(args, self._step, len(prompt_ids), *processes),
            begin,
            lambda asked, limit: self._student_writes(asked, limit, None, {}),
            length=args.teacher_prefix_length,
            limit=cast(int, args.response_limit(self._step)),
            ends=ends,
            context=context_length(trainer.student.config),
        )

    def _student_writes(
        self, prompt_ids: list[list[int]], most: int | None, *args: Any, **kwargs: Any
    ) -> list[Drawn]:
        """What the student draws, or what stands in its place; of `most` tokens, if given."""
        trainer, settings = self._trainer, self._trainer.args
        trains, recorder = trainer.student.training, Recorder(settings.temperature)
        if trains and most is None and settings.rollout_horizon is not None:
            most = settings.response_limit(self._step)
        if trains and trainer.rollouts.write is not None:
            written = [ids[:most] for ids in trainer.rollouts.write(prompt_ids)]
        else:
            listens = trains and trainer.rollouts.origins.records
            heard = recorder.listening(trainer.student) if listens else nullcontext()
            leaves = trains and settings.leave_ended
            left = leaving_ended(trainer.student, trainer.eos_token_ids, recorder)
            with self._limited(most), heard, left if leaves else nullcontext():
                written = self._draw(prompt_ids, *args, **kwargs)
        check_completions(prompt_ids, written, most or trainer.max_completion_length)
        return list(zip(written, recorder.of(written), strict=True))

    @contextmanager
    def _limited(self, most: int | None) -> Iterator[None]:
        """Let responses have so many tokens, if they are given."""
        if most is None:
            yield
            return
        trainer = self._trainer
        name = "max_completion_length" if trainer.use_vllm else "max_new_tokens"
        engine = trainer.vllm_generation if trainer.use_vllm else trainer.generation_config
        whole = getattr(engine, name)
        setattr(engine, name, most)
        try:
            yield
        finally:
            setattr(engine, name, whole)

    @property
    def _step(self) -> int:
        """Of the run, from 0, that is about to be made."""
        return self._trainer.state.global_step
