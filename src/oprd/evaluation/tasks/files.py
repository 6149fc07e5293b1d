"""Problems from rows of a file or a data set, every row checked."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, NamedTuple

from oprd.evaluation.grading import check_gold
from oprd.files import Row
from oprd.text import check_text

BadRows = Literal["error", "skip"]
# What follows is GSM8K's answer.
FINAL = "####"


class RawProblem(NamedTuple):
    """One problem before its template: earlier messages, the text of the problem, the answer."""

    before: list[dict[str, str]]
    problem: str
    gold: str


def parse_problems(
    rows: Iterable[Row], source: str, bad_rows: BadRows = "error"
) -> tuple[list[RawProblem], int]:
    """Check rows, gold answers among them, and bring them into one form.

    Understood are `prompt` (text or messages) with `reward_model.ground_truth` or `answer`, and
    `problem` or `question` with `answer`.

    Args:
        rows: numbered, as messages name them.
        source: what messages call their origin.
        bad_rows: `"error"` stops at the first bad row, `"skip"` counts them.

    Returns:
        The good rows, and how many were bad.

    Raises:
        ValueError: a row is bad, or no good one is left.
        ImportError: a gold answer is a formula, and math-verify is not installed.
    """
    # Formulas are compared in other processes, several at once.
    with ThreadPoolExecutor(4) as threads:
        parsed = [(row.number, threads.submit(_parse, row)) for row in rows]
    good, skipped = [], 0
    for number, problem in parsed:
        try:
            good.append(problem.result())
        except ValueError as error:
            if bad_rows == "error":
                way_out = "mend the row, or skip such rows with --bad_rows skip (bad_rows='skip')"
                raise ValueError(f"{source}, row {number}: {error}: {way_out}.") from error
            skipped += 1
    if not good:
        raise ValueError(f"{source} has no usable row ({skipped} bad rows).")
    return good, skipped


def _parse(numbered: Row) -> RawProblem:
    if numbered.problem:
        raise ValueError(numbered.problem)
    row = numbered.fields
    before: list[dict[str, str]] = []
    if row.get("prompt") is not None:
        problem: Any = row["prompt"]
        if not isinstance(problem, str):
            before, problem = _messages(problem)
    else:
        problem = next((row[key] for key in ("problem", "question") if key in row), None)
    return RawProblem(before, _text(problem, "prompt, problem or question", row), _gold(row))


def _gold(row: dict[str, Any]) -> str:
    reward = row.get("reward_model")
    gold = reward.get("ground_truth") if isinstance(reward, dict) else row.get("answer")
    if isinstance(gold, int | float) and not isinstance(gold, bool):
        gold = str(gold)
    text = _text(gold, "answer or reward_model.ground_truth", row).rpartition(FINAL)[2].strip()
    check_gold(text)
    return text


def _messages(messages: Any) -> tuple[list[dict[str, str]], Any]:
    """All messages but the last, and the content of the last one, which is the user's."""
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise ValueError(f"prompt is text or a list of messages, got {type(messages).__name__}")
    roles = [message.get("role") for message in messages]
    turns = roles[1:] if roles[:1] == ["system"] else roles
    expected = [("user", "assistant")[turn % 2] for turn in range(len(turns))]
    if turns != expected or len(turns) % 2 == 0:
        raise ValueError(
            f"the roles {roles} are not an optional system, then user and assistant in turn, "
            "user last"
        )
    for message in messages[:-1]:
        _text(message.get("content"), "content", message)
    before = [{"role": m["role"], "content": m["content"]} for m in messages[:-1]]
    return before, messages[-1].get("content")


def _text(value: Any, name: str, row: dict[str, Any]) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{name} must be text, got {value!r} among the columns {sorted(row)}")
    return check_text(value, name)
