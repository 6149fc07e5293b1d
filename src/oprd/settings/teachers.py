"""Settings of who teaches, and what it reads."""

from dataclasses import dataclass, field
from typing import Any

from trl.trainer.distillation_config import DistillationConfig

from oprd.models.prompt import compile_template, template_columns
from oprd.values import parse_mapping


@dataclass
class TeacherConfig(DistillationConfig):
    """What the teacher reads in the place of the student's prompts.

    The teacher reads what the student wrote after a prompt of its own where the data have a column
    `teacher_prompt` (text or messages, as the prompts are), or `teacher_prompts`, a list of several
    over which its states are averaged, or where one of these is set.

    Args:
        teacher_template: Jinja over a row's columns that gives the text of the teacher's prompt, of
            chat messages that of the last one. `prompt` is that text as the student reads it.
        teacher_system_prompt: Jinja over a row's columns that gives the system message of the
            teacher's prompt, for chat messages.
        teacher_chat_template_kwargs: what the teacher's chat template is given besides
            `chat_template_kwargs`, or in their place.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

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

    def __post_init__(self) -> None:
        """Check the templates."""
        for name in ("teacher_template", "teacher_system_prompt"):
            compile_template(getattr(self, name), name)
        given = self.teacher_chat_template_kwargs
        if isinstance(given, str):
            self.teacher_chat_template_kwargs = parse_mapping("teacher_chat_template_kwargs", given)
        super().__post_init__()

    @property
    def teacher_columns(self) -> set[str]:
        """The columns that the teacher's templates name."""
        templates = (self.teacher_template, self.teacher_system_prompt)
        return set().union(*map(template_columns, templates))
