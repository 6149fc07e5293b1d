"""Settings of who teaches, and what it reads."""

import copy
from dataclasses import dataclass, field
from typing import Any, Self, cast

from oprd.models.prompt import ROUTE, compile_template, template_columns
from oprd.settings.own_tokens import settle_own_tokens
from oprd.settings.serving import SERVER, ServedTeacherConfig, check_serving
from oprd.settings.team import OWN, check_team, own_settings, parse_teachers
from oprd.values import check_choice, parse_mapping

SOURCES = ("path", *OWN, SERVER)


@dataclass
class TeacherConfig(ServedTeacherConfig):
    """Who the teacher is, and what it reads in the place of the student's prompts.

    The teacher reads what the student wrote after a prompt of its own where the data have a column
    `teacher_prompt` (text or messages, as the prompts are), or `teacher_prompts`, a list of several
    over which its states are averaged, or where one of these is set.

    Args:
        teacher_source: "path", a model or an adapter by its path or given to the trainer; "base",
            the student's base under its adapter; "copy", the student as it was when the run began;
            "ema", the exponential moving average of what trains in it, moved after each step;
            "server", a model that an inference server holds, see `ServedTeacherConfig`.
        ema_decay: what stays of that average in a step, from 0, the student as it is, to below 1.
        reference_model: what `extrapolation` goes on from, in general what the teacher was trained
            from: a path or hub id of a model or an adapter, or "base", the student's base under its
            adapter. It reads what the teacher reads.
        extrapolation: λ > 0, the targets are h_T + (λ − 1)(h_T − h_ref) at every layer; 1 is the
            teacher and loads no reference. Output losses and diagnostics stay with the teacher.
        extrapolation_power: the squared distance is multiplied by λ to the minus this: 2, 1 or 0.
            Not at unit length, nor with a state loss that has no scale.
        end_tokens: "either" lets rollouts stop where the student or the teacher stops, and output
            losses take these tokens for one; "student" leaves the student its own. An
            `eos_token_id` among `generation_kwargs` does so too.
        teacher_template: Jinja over a row's columns that gives the text of the teacher's prompt, of
            chat messages that of the last one. `prompt` is that text as the student reads it.
        teacher_system_prompt: Jinja over a row's columns that gives the system message of the
            teacher's prompt, for chat messages.
        teacher_chat_template_kwargs: what the teacher's chat template is given besides
            `chat_template_kwargs`, or in their place.
        teacher_tokenizer: whose tokens the teacher reads: the "student"'s, which must mean the same
            to it, or its "own": the text of prompt and response by its own tokenizer and chat
            template, where states meet wherever both have read the same bytes.
        teacher_special_tokens: which token such a teacher reads in the place of a special token of
            the student's, None for nothing, where `oprd.models.special_tokens` does not know. On
            the command line as JSON.
        teachers: several teachers, each a mapping with a `name` and any of the settings in
            `oprd.settings.team.KEYS`; what it leaves out is the run's. The prompts' column
            `teacher` names who teaches a row, one or several in a list; without it all teach every
            row, by their weights. On the command line as JSON.
        teacher_batches: with several teachers, whether the prompts of one update are of the same
            teacher, "pure", or as they come, "mixed".
        teacher_offload: "cpu" keeps teachers in the CPU's memory but for the one that reads.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    teacher_source: str = field(
        default="path",
        metadata={"help": f"Who the teacher is: {', '.join(SOURCES)}."},
    )
    ema_decay: float = field(
        default=0.99, metadata={"help": "What stays of teacher_source='ema' in a step."}
    )
    reference_model: str | None = field(
        default=None, metadata={"help": "What extrapolation goes on from: a path, or base."}
    )
    extrapolation: float = field(
        default=1.0,
        metadata={"help": "How far the targets lie on the way from reference to teacher; 1 is it."},
    )
    extrapolation_power: int = field(
        default=2,
        metadata={"help": "The distance is divided by extrapolation to this power: 0, 1 or 2."},
    )
    end_tokens: str = field(
        default="either",
        metadata={"help": "Where rollouts stop: at the end tokens of either model or the student."},
    )
    teacher_template: str | None = field(
        default=None,
        metadata={
            "help": "Jinja over a row's columns that gives the teacher's prompt, such as "
            "'{{ prompt }} A solution: {{ solution }}'."
        },
    )
    teacher_system_prompt: str | None = field(
        default=None, metadata={"help": "Jinja that gives the teacher's system message."}
    )
    teacher_chat_template_kwargs: dict[str, Any] | str | None = field(
        default=None,
        metadata={"help": "What the teacher's chat template is given in place of the student's."},
    )
    teacher_tokenizer: str = field(
        default="student",
        metadata={"help": "Whose tokens the teacher reads: the student's, or its own."},
    )
    teacher_special_tokens: dict[str, Any] | str | None = field(
        default=None,
        metadata={
            "help": "The teacher's own token by the student's special one, such as "
            '{"<|im_end|>": "<end_of_turn>"}; null for none.'
        },
    )
    teachers: list[dict[str, Any]] | str | None = field(
        default=None,
        metadata={"help": "Several teachers, each with its name, source, prompt, layers, weight."},
    )
    teacher_batches: str = field(
        default="pure",
        metadata={
            "help": "Whether an update's prompts are of one of several teachers (pure) or mixed."
        },
    )
    teacher_offload: str | None = field(
        default=None,
        metadata={"help": "cpu: only the teacher that reads is on the device."},
    )

    # No setting: a run that is only looked at measures and fits nothing for its teacher.
    only_looks = False
    # Nor this: whether they are those of one of several teachers alone.
    of_several = False

    def __post_init__(self) -> None:
        """Check the names and the templates."""
        check_choice("teacher_batches", self.teacher_batches, ("pure", "mixed"))
        if self.teacher_offload is not None:
            check_choice("teacher_offload", self.teacher_offload, ("cpu",))
        self.teachers = parse_teachers(self.teachers)
        check_choice("teacher_source", self.teacher_source, SOURCES)
        check_choice("end_tokens", self.end_tokens, ("either", "student"))
        if self.extrapolation_power not in (0, 1, 2):
            raise ValueError(
                f"extrapolation_power must be 0, 1 or 2, got {self.extrapolation_power!r}."
            )
        for name in ("teacher_template", "teacher_system_prompt"):
            compile_template(getattr(self, name), name)
        given = self.teacher_chat_template_kwargs
        if isinstance(given, str):
            self.teacher_chat_template_kwargs = parse_mapping("teacher_chat_template_kwargs", given)
        super().__post_init__()
        check_team(self)
        settle_own_tokens(self)
        check_serving(cast(Any, self))

    @property
    def extrapolates(self) -> bool:
        """Whether the targets are other than the teacher's states."""
        return self.extrapolation != 1

    @property
    def reads_own_tokens(self) -> bool:
        """Whether the teacher reads the text of a response in tokens of its own."""
        return self.teacher_tokenizer == "own"

    @property
    def joins_ends(self) -> bool:
        """Whether the end tokens of both models are one."""
        given = self.generation_kwargs
        return self.end_tokens == "either" and "eos_token_id" not in (given or {})

    @property
    def teacher_columns(self) -> set[str]:
        """The columns that teachers' prompts are made of, or that name a row's teacher."""
        every = [
            template_columns(template)
            for own in self.by_teacher().values()
            for template in (own.teacher_template, own.teacher_system_prompt)
        ]
        return set().union(*every, {ROUTE} if self.teachers else ())

    @property
    def teacher_weights(self) -> dict[str, float | None]:
        """Of several teachers, by name; empty for one."""
        several = cast(list[dict[str, Any]], self.teachers or [])
        return {teacher["name"]: teacher.get("weight") for teacher in several}

    @property
    def may_fit(self) -> bool:
        """Whether a run may fit a bridge itself: its only teacher, and it is loaded here."""
        return self.teacher_source != SERVER and not (self.teachers or self.of_several)

    def by_teacher(self) -> dict[str, Self]:
        """The settings of a run with each teacher alone, by name; its own, by "", for one."""
        if not self.teachers:
            return {"": self}
        found = {}
        for teacher in cast(list[dict[str, Any]], self.teachers):
            settings = copy.copy(self)
            settings.teachers, settings.of_several = None, True
            for name, value in own_settings(teacher).items():
                setattr(settings, name, value)
            found[teacher["name"]] = settings
        return found
