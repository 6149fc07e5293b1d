"""What a row must hold to be trained on, and the table that the good rows make."""

import math
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple, cast

import pyarrow as pa

PROMPT_COLUMNS = ("prompt", "problem")
COLUMNS = (*PROMPT_COLUMNS, "answer", "reward_model")
ROLES = ("system", "user", "assistant")
MESSAGE_FIELDS = ("role", "content")

Message = Mapping[str, str]


class Example(NamedTuple):
    """A checked row: text or chat messages, and the gold answer where there is one."""

    prompt: str | Sequence[Message]
    answer: str | None


def prompt_columns(names: Iterable[str], source: str) -> list[str]:
    """Those of a table's columns that are read.

    Raises:
        ValueError: there is no column for prompts.
    """
    names = list(names)
    if not set(PROMPT_COLUMNS) & set(names):
        raise ValueError(f"{source!r} has {missing_prompt(names)}.")
    return [name for name in COLUMNS if name in names]


def missing_prompt(names: Iterable[str]) -> str:
    """Says which columns were looked for and which were found."""
    found = ", ".join(map(reprlib.repr, names)) or "none"
    return f"no column 'prompt' or 'problem' (its columns: {found})"


def parse_example(fields: Mapping[str, Any]) -> Example:
    """Check a row of any known layout.

    Raises:
        ValueError: the row cannot be trained on; the message says why.
    """
    column = next((name for name in PROMPT_COLUMNS if name in fields), None)
    if column is None:
        raise ValueError(f"it has {missing_prompt(fields)}")
    prompt = fields[column]
    if isinstance(prompt, list):
        _check_messages(prompt)
    elif prompt is None or isinstance(prompt, str):
        _check_text(prompt, f"the {column}")
    else:
        raise ValueError(f"the {column} is {_kind(prompt)}, not text or a list of chat messages")
    return Example(cast("str | list[Message]", prompt), _answer(fields))


def table(examples: Sequence[Example]) -> pa.Table:
    """The columns `prompt` and `answer` of examples that are all text, or all messages."""
    prompts = [example.prompt for example in examples]
    answers = pa.array([example.answer for example in examples], pa.string())
    return pa.table({"prompt": _prompt_array(prompts), "answer": answers})


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
            raise ValueError(f"message {number} is {_kind(message)}, not a 'role' and a 'content'")
        if message.get("role") not in ROLES:
            role = reprlib.repr(message.get("role"))
            raise ValueError(f"message {number} has the role {role}, not one of {', '.join(ROLES)}")
        _check_text(message.get("content"), f"the content of message {number}")
    roles = [message["role"] for message in messages]
    turns = roles[1:] if roles[0] == "system" else roles
    expected = [("user", "assistant")[index % 2] for index in range(len(turns))]
    if turns != expected or len(turns) % 2 == 0:
        raise ValueError(
            f"the roles are {reprlib.repr(roles)}: after an optional system message, user and "
            "assistant take turns, and the last message is the user's"
        )


def _check_text(text: object, what: str) -> None:
    if text is None:
        raise ValueError(f"{what} is missing")
    if not isinstance(text, str):
        raise ValueError(f"{what} is {_kind(text)}, not text")
    if not text.strip():
        raise ValueError(f"{what} is empty")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} is not valid Unicode at character {error.start}") from error


def _answer(fields: Mapping[str, Any]) -> str | None:
    reward_model = fields.get("reward_model")
    answer = fields.get("answer")
    if answer is None and isinstance(reward_model, dict):
        answer = reward_model.get("ground_truth")
    if answer is None or answer == "" or (isinstance(answer, float) and math.isnan(answer)):
        return None
    if isinstance(answer, bool) or not isinstance(answer, str | int | float):
        raise ValueError(f"the answer is {_kind(answer)}, not text or a number")
    text = str(answer)
    _check_text(text, "the answer")
    return text


def _kind(value: object) -> str:
    return f"{type(value).__name__} {reprlib.repr(value)}"
