"""What a teacher reads in the place of a row's prompt: columns of its own, or a template over all.

The student's response follows either prompt, token by token the same. How the two prompts end
decides whether it begins in the same way, which is looked at in every row. A teacher with a
tokenizer of its own reads every prompt by its own chat template, which ends in its own way.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from datasets import Dataset

from oprd.log import get_logger
from oprd.models.prompt import (
    Prompt,
    compile_template,
    generation_prompt,
    render,
    render_prompt,
    template_columns,
)
from oprd.prompts.examples import TEACHER_COLUMNS, check_prompt
from oprd.prompts.lengths import keep_fitting, prompt_problem
from oprd.prompts.seam import check_seam
from oprd.text import check_text, kind

ONE, SEVERAL = TEACHER_COLUMNS
# Characters of a prompt's end.
SHOWN = 60
logger = get_logger(__name__)


@dataclass
class TeacherPrompts:
    """A teacher's own prompts of each row, as text or messages and as tokens.

    Args:
        reader: the tokenizer or processor that both models have, or the student's.
        options: what the student's chat template is given.
        own_options: what the teacher's is given besides, or in their place.
        template: Jinja over the row's columns that gives the text of the prompt, or of its last
            message of the user; `prompt` is that text as the student reads it.
        system: likewise the system message.
        context: the longest sequence that the teacher reads, None where there is no limit.
        longest: the response's limit in tokens.
        own_reader: the teacher's tokenizer where it has one of its own; its chat template is given
            nothing of `options`.

    Attributes:
        count: most prompts of a row; None until one is read.
    """

    reader: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    own_options: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None
    system: str | None = None
    context: int | None = None
    longest: int | None = None
    own_reader: Any = None
    count: int | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._text = compile_template(self.template, "teacher_template")
        self._system = compile_template(self.system, "teacher_system_prompt")
        shared = self.options if self.own_reader is None else {}
        self._own_options = {**shared, **self.own_options}
        self._openings: dict[str, str] = {}
        self._seam_is_seen = False

    def differ(self, columns: Collection[str]) -> bool:
        """Whether the teacher reads other tokens than the student in rows with these columns."""
        return self.own_reader is not None or self.say_otherwise(columns)

    def say_otherwise(self, columns: Collection[str]) -> bool:
        """Whether it reads other prompts there, by its data, its templates or what they are given.

        A chat template of its own is always given what is its own.
        """
        given = self._text or self._system or (self.own_options and self.own_reader is None)
        return bool(given) or any(name in columns for name in TEACHER_COLUMNS)

    def of(self, row: Mapping[str, Any]) -> list[Prompt]:
        """A row's prompts for the teacher, one or more.

        Raises:
            ValueError: there is none, it is no prompt, or it is not of the student's form.
        """
        prompt = row["prompt"]
        if self._text is not None:
            several = [prompt]
        elif SEVERAL in row:
            several = row[SEVERAL]
            if not isinstance(several, list) or not several:
                raise ValueError(f"has no list of {SEVERAL}, but {kind(several)}")
        else:
            several = [row.get(ONE, prompt)]
        found = []
        for own in several:
            check_prompt(own, ONE)
            if isinstance(own, str) != isinstance(prompt, str):
                forms = ("text", "messages") if isinstance(own, str) else ("messages", "text")
                raise ValueError(
                    f"the {ONE} is {forms[0]} and the prompt is {forms[1]}: give both in one form, "
                    "so that the response begins alike"
                )
            found.append(self._rendered(own, row))
        return found

    def tokens(self, row: Mapping[str, Any]) -> list[list[int]]:
        """The same as the teacher reads them.

        Raises:
            ValueError: see `of`; one is too long; or one ends otherwise than the student's, so that
                the response does not begin where it begins for the student.
        """
        contexts = {} if self.context is None else {"teacher": self.context}
        asked = row["prompt"]
        reader, own = self.reader if self.own_reader is None else self.own_reader, self._own_options
        checks = self.own_reader is None
        expected = self._end(asked, self._student_text(asked), "student") if checks else ""
        found = []
        for prompt in self.of(row):
            text, ids = render_prompt(reader, prompt, **own)
            end = self._end(prompt, text, "teacher") if checks else ""
            # What the teacher's template is told to add is meant.
            if end != expected and not self.own_options:
                raise ValueError(
                    f"ends in {text[-SHOWN:]!r} as the teacher reads it, and for the student the "
                    f"response begins after {expected[-SHOWN:]!r}: let both end alike, or say with "
                    "teacher_chat_template_kwargs what the teacher's template is to add"
                )
            if not checks and not self._seam_is_seen:
                self._seam_is_seen = True
                check_seam(reader, prompt, text, ids, **own)
            if problem := prompt_problem(ids, contexts, self.longest):
                raise ValueError(f"it {problem}")
            found.append(ids)
        return found

    def fitting(
        self,
        dataset: Dataset,
        name: str,
        *,
        drop: bool,
        teaches: Callable[[Mapping[str, Any]], bool] = lambda row: True,
    ) -> Dataset:
        """A dataset in which every prompt for the teacher can be read and leaves room.

        Args:
            dataset: of prompts.
            name: what it is for, in messages.
            drop: leave out rows that do not fit instead of refusing them.
            teaches: whether a row is one of the teacher's.

        Raises:
            ValueError: a template names a column that is not there, or see `keep_fitting`.
        """
        if not self.differ(dataset.column_names):
            return dataset
        self._check_columns(dataset.column_names)

        def problems() -> Iterator[str | None]:
            for row in cast(Iterable[Mapping[str, Any]], dataset):
                if not teaches(row):
                    yield None
                    continue
                try:
                    several = self.tokens(row)
                except ValueError as error:
                    yield f"is none that the teacher can read: {error}"
                    continue
                self.count = max(self.count or 1, len(several))
                yield None

        return keep_fitting(dataset, problems(), drop=drop, name=name)

    def batch(
        self,
        rows: Sequence[Mapping[str, Any]],
        teaches: Callable[[Mapping[str, Any]], bool] = lambda row: True,
        instead: int = 0,
    ) -> list[list[list[int]]] | None:
        """Token ids of every row's prompts; None where the teacher reads the student's.

        Args:
            rows: of a batch.
            teaches: whether a row is one of the teacher's.
            instead: a token that stands for the prompts of the others.

        Raises:
            ValueError: see `tokens`; rows of a stream have different numbers of prompts.
        """
        if not rows or not self.differ(rows[0]):
            return None
        own = [teaches(row) for row in rows]
        found = [
            self.tokens(row) if taught else [[instead]]
            for row, taught in zip(rows, own, strict=True)
        ]
        if self.count is None and any(own):
            self.count = len(found[own.index(True)])
        if self.count is not None and any(len(several) > self.count for several in found):
            raise ValueError(
                f"a streamed row has more than {self.count} {SEVERAL}, as the first one had: give "
                "all rows equally many."
            )
        return found

    def _rendered(self, prompt: Prompt, row: Mapping[str, Any]) -> Prompt:
        """A prompt with the text, and the system message, that the templates give it."""
        text = prompt if isinstance(prompt, str) else prompt[-1]["content"]
        names = {**row, "prompt": text}
        if self._text is not None:
            text = check_text(self._text(**names), "what teacher_template gives")
        if isinstance(prompt, str):
            if self._system is not None:
                raise ValueError(
                    "teacher_system_prompt is for prompts that are chat messages, and this one is "
                    "text: put it into teacher_template"
                )
            return text
        turns = [*prompt[:-1], {**prompt[-1], "content": text}]
        if self._system is None:
            return turns
        system = check_text(self._system(**names), "what teacher_system_prompt gives")
        turns = turns[1:] if turns[0]["role"] == "system" else turns
        return [{"role": "system", "content": system}, *turns]

    def _student_text(self, prompt: Prompt) -> str:
        return prompt if isinstance(prompt, str) else render(self.reader, prompt, **self.options)

    def _end(self, prompt: Prompt, text: str, role: str) -> str:
        """What stands before the response: what the chat template adds, of text its last spaces."""
        if not isinstance(prompt, str):
            known = self._openings.get(role)
            if known and text.endswith(known):
                return known
            options = self.options if role == "student" else self._own_options
            opening = generation_prompt(self.reader, prompt, text, **options)
            if opening != text:
                self._openings[role] = opening
                return opening
        return text[len(text.rstrip()) :]

    def _check_columns(self, columns: Collection[str]) -> None:
        """Refuse, with a ValueError, columns that a template lacks, or two of one use."""
        listed = ", ".join(map(repr, columns))
        templates = {"teacher_template": self.template, "teacher_system_prompt": self.system}
        named = {setting: template_columns(source) for setting, source in templates.items()}
        for setting, names in named.items():
            if missing := sorted(names - {*columns}):
                raise ValueError(
                    f"{setting} names {missing[0]!r}, which is no column of the prompts (their "
                    f"columns: {listed})."
                )
        own = [name for name in TEACHER_COLUMNS if name in columns]
        if self.template is not None:
            own = [name for name in own if name not in named["teacher_template"]]
            own += ["teacher_template"] * bool(own)
        if len(own) > 1:
            raise ValueError(
                f"the prompts have {' and '.join(own)}, of which the teacher can read one: leave "
                "the other out."
            )
