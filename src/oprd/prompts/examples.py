"""What a row must hold to be trained on, and the table that the good rows make."""

import math
import reprlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, chain
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import pyarrow as pa

from oprd.text import check_text, kind

# Where a prompt is looked for, in this order.
PROMPT_COLUMNS = ("prompt", "problem", "messages", "question", "instruction")
# Alpaca's instructions have what they are about in a column of its own.
INPUT = "input"
# What a teacher reads in the prompt's place, and several such prompts of one row.
TEACHER_COLUMNS = ("teacher_prompt", "teacher_prompts")
ANSWER_COLUMNS = ("answer", "reward_model")
ROLES = ("system", "user", "assistant")
MESSAGE_FIELDS = ("role", "content")

Message = Mapping[str, str]


class Example(NamedTuple):
    """A checked row: text or chat messages, and the gold answer where there is one.

    Attributes:
        further: other columns that are kept, as they are.
    """

    prompt: str | Sequence[Message]
    answer: str | None
    further: Mapping[str, Any] = MappingProxyType({})


def read_columns(
    names: Iterable[str],
    source: str,
    prompt_column: str | None = None,
    keep: Collection[str] = (),
) -> list[str]:
    """Those of a table's columns that are read.

    Raises:
        ValueError: there is no column for prompts.
    """
    names = list(names)
    column = find_prompt(names, prompt_column)
    if column is None:
        raise ValueError(f"{source!r} has {missing_prompt(names, prompt_column)}.")
    wanted = {column, *ANSWER_COLUMNS, *TEACHER_COLUMNS, *keep}
    wanted |= {INPUT} if column == "instruction" else set()
    return [name for name in names if name in wanted]


def find_prompt(names: Iterable[str], prompt_column: str | None = None) -> str | None:
    """The column that holds the prompt, None where there is none."""
    looked_for = (prompt_column,) if prompt_column else PROMPT_COLUMNS
    names = set(names)
    return next((name for name in looked_for if name in names), None)


def missing_prompt(names: Iterable[str], prompt_column: str | None = None) -> str:
    """Says which columns were looked for, which were found, and what to do."""
    found = ", ".join(map(reprlib.repr, names)) or "none"
    if prompt_column:
        return f"no column {prompt_column!r} for prompt_column (its columns: {found})"
    *others, last = map(repr, PROMPT_COLUMNS)
    return (
        f"no column {', '.join(others)} or {last} (its columns: {found}): rename the one that "
        "holds the prompts, or name it with --prompt_column"
    )


def parse_example(
    fields: Mapping[str, Any], prompt_column: str | None = None, keep: Collection[str] = ()
) -> Example:
    """Check a row of any known layout.

    Args:
        fields: the row.
        prompt_column: where its prompt is, if not where it is looked for.
        keep: columns that are kept besides, where they are; those for a teacher always are.

    Raises:
        ValueError: the row cannot be trained on; the message says why.
    """
    column = find_prompt(fields, prompt_column)
    if column is None:
        raise ValueError(f"it has {missing_prompt(fields, prompt_column)}")
    prompt = fields[column]
    if isinstance(prompt, list):
        prompt = prompt if column == "prompt" else _unanswered(prompt)
    check_prompt(prompt, column)
    if column == "instruction" and isinstance(prompt, str) and fields.get(INPUT):
        prompt = f"{prompt}\n\n{check_text(fields[INPUT], 'the input')}"
    kept = {
        name: fields[name]
        for name in fields
        if (name in TEACHER_COLUMNS or name in keep) and name not in ("prompt", "answer")
    }
    return Example(cast("str | list[Message]", prompt), _answer(fields), kept)


def check_prompt(prompt: Any, column: str) -> None:
    """Refuse, with a ValueError, what is neither text nor messages that a student can answer."""
    if isinstance(prompt, list):
        _check_messages(prompt)
    elif prompt is None or isinstance(prompt, str):
        check_text(prompt, f"the {column}")
    else:
        raise ValueError(f"the {column} is {kind(prompt)}, not text or a list of chat messages")


def _unanswered(messages: list[Any]) -> list[Any]:
    """A conversation without the assistant's last turn: the student writes its own."""
    last = messages[-1] if messages else None
    answered = isinstance(last, dict) and last.get("role") == "assistant"
    return messages[:-1] if answered else messages


def table(examples: Sequence[Example]) -> pa.Table:
    """The columns of examples that are all text, or all messages: `prompt`, `answer`, and others.

    Raises:
        ValueError: the values of another column are not of one kind.
    """
    prompts = [example.prompt for example in examples]
    columns = {
        "prompt": _prompt_array(prompts),
        "answer": pa.array([example.answer for example in examples], pa.string()),
    }
    for name in sorted({name for example in examples for name in example.further}):
        try:
            columns[name] = pa.array([example.further.get(name) for example in examples])
        except pa.ArrowException as error:
            raise ValueError(f"the column {name!r} mixes kinds of values: {error}") from error
    return pa.table(columns)


def _prompt_array(prompts: Sequence[Any]) -> pa.Array:
    if isinstance(prompts[0], str):
        return pa.array(prompts, pa.string())
    # From flat columns: far faster than letting pyarrow walk nested Python objects.
    messages = list(chain.from_iterable(prompts))
    flat = pa.StructArray.from_arrays(
        [pa.array([message[name] for message in messages], pa.string()) for name in MESSAGE_FIELDS],
        names=list(MESSAGE_FIELDS),
    )
    offsets = pa.array([0, *accumulate(map(len, prompts))], pa.int32())
    return pa.ListArray.from_arrays(offsets, flat)


def _check_messages(messages: list[Any]) -> None:
    if not messages:
        raise ValueError("the prompt is a list without messages")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, dict):
            raise ValueError(f"message {number} is {kind(message)}, not a 'role' and a 'content'")
        if message.get("role") not in ROLES:
            role = reprlib.repr(message.get("role"))
            raise ValueError(f"message {number} has the role {role}, not one of {', '.join(ROLES)}")
        check_text(message.get("content"), f"the content of message {number}")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    expected = [("user", "assistant")[index % 2] for index in range(len(turns))]
    if turns != expected or len(turns) % 2 == 0:
        raise ValueError(
            f"the roles are {reprlib.repr(roles)}: after an optional system message, user and "
            "assistant take turns, and the last message is the user's"
        )


def _answer(fields: Mapping[str, Any]) -> str | None:
    reward_model = fields.get("reward_model")
    answer = fields.get("answer")
    if answer is None and isinstance(reward_model, dict):
        answer = reward_model.get("ground_truth")
    if answer is None or answer == "" or (isinstance(answer, float) and math.isnan(answer)):
        return None
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ValueError(f"the answer is {kind(answer)}, not text or a number")
    return check_text(str(answer), "the answer")
