"""The rollouts that a bridge is fitted on, on disk as the student writes them.

Every process appends to a file of its own; when all are there, they are put into one. A fit that
was interrupted goes on with the prompts that have no rollout yet, in however many processes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from oprd.models.generate import Engine, Request
from oprd.models.prompt import Message
from oprd.models.sampling import Sampling
from oprd.runs.progress import progress_bar
from oprd.runs.rowfile import RowFile, check_header, parse_rows, rewrite_rows

FILE = "rollouts.jsonl"
# The seed of a rollout is that of a sample of this "task".
SEED_NAME = "bridge rollouts"


@dataclass(frozen=True)
class Rollout:
    """A prompt, and what the student wrote after it.

    Attributes:
        prompt: the prompt's number in its source, from 0.
        text: the prompt as the student read it.
        prompt_ids: its tokens.
        completion_ids: the response's tokens, its end token included where there is one.
        finish_reason: `"stop"` or `"length"`.
        messages: the prompt before a chat template rendered it; None for one that is text.
    """

    prompt: int
    text: str
    prompt_ids: list[int]
    completion_ids: list[int]
    finish_reason: str
    messages: list[Message] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.prompt, int) or not isinstance(self.text, str):
            raise ValueError("prompt must be a number and text a text.")
        for name, ids in (("prompt_ids", self.prompt_ids), ("completion_ids", self.completion_ids)):
            if not isinstance(ids, list) or not all(isinstance(i, int) and i >= 0 for i in ids):
                raise ValueError(f"{name} must be a list of token ids.")
        turns = [] if self.messages is None else self.messages
        if not isinstance(turns, list) or not all(map(_is_message, turns)):
            raise ValueError("messages must be a list of chat messages, or null.")
        if not self.prompt_ids:
            raise ValueError("prompt_ids must hold a token.")

    @property
    def key(self) -> int:
        """The prompt's number."""
        return self.prompt

    @property
    def name(self) -> str:
        """The prompt, for messages."""
        return f"prompt {self.prompt} ({self.text[:60]!r})"


@dataclass(frozen=True)
class RenderedPrompt:
    """A prompt as the student reads it."""

    text: str
    ids: list[int]
    messages: list[Message] | None = None


def collect_rollouts(
    engine: Engine,
    prompts: Sequence[RenderedPrompt],
    sampling: Sampling,
    header: Mapping[str, Any],
    folder: Path,
    *,
    progress: bool = True,
) -> list[Rollout]:
    """One rollout for each prompt, written as it is made; those on disk are not written again.

    Every process calls it and gets all rollouts, in the order of the prompts.

    Args:
        engine: the student.
        prompts: what it answers.
        sampling: how; one sample a prompt.
        header: what the rollouts depend on.
        folder: where `rollouts.jsonl` is or will be.
        progress: whether to show a progress bar.

    Raises:
        ValueError: the file was written under another header or is broken, or the engine returned
            fewer rollouts than were asked for.
        OSError: another process writes to the file.
    """
    state = PartialState()
    done = {rollout.prompt for rollout in _read_parts(folder, header)}
    missing = [number for number in range(len(prompts)) if number not in done]
    # Nobody writes before everybody has read.
    state.wait_for_everyone()
    own = missing[state.process_index :: state.num_processes]
    part = _part(folder, state.process_index)
    shown = progress and state.is_main_process and bool(own)
    if own or state.is_main_process:
        with RowFile(part, dict(header), Rollout) as file, progress_bar(shown) as bar:
            task = bar.add_task("rollouts", total=len(own))
            for batch in _generate(engine, prompts, own, sampling):
                file.append(batch)
                bar.advance(task, len(batch))
    state.wait_for_everyone()
    rollouts = sorted(_read_parts(folder, header), key=lambda rollout: rollout.prompt)
    state.wait_for_everyone()
    if state.is_main_process:
        rewrite_rows(folder / FILE, dict(header), rollouts)
        for path in _parts(folder):
            if path.name != FILE:
                path.unlink()
    state.wait_for_everyone()
    if len(rollouts) != len(prompts):
        raise ValueError(f"{len(prompts)} rollouts were asked for and {len(rollouts)} came back.")
    return rollouts


def read_rollouts(path: Path) -> tuple[dict[str, Any], list[Rollout]]:
    """The header and the rollouts of a file that `collect_rollouts` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is of another kind, broken, or holds no rollout.
    """
    if not path.is_file():
        raise FileNotFoundError(f"rollouts {str(path)!r}: there is no such file.")
    header, rollouts, _ = parse_rows(path, Rollout)
    if header is None or not rollouts:
        raise ValueError(f"{path} holds no rollouts.")
    return header, rollouts


def check_rollouts(
    rollouts: Sequence[Rollout], vocabularies: Mapping[str, int], contexts: Mapping[str, int]
) -> None:
    """Refuse rollouts that one of the models cannot read.

    Args:
        rollouts: what will be read.
        vocabularies: rows of each model's embedding, by the model's name.
        contexts: the longest sequence that each model reads, by the model's name.

    Raises:
        ValueError: a token id or a length is beyond a model; the message names the prompt.
    """
    for rollout in rollouts:
        largest = max(max(rollout.prompt_ids), max(rollout.completion_ids, default=0))
        length = len(rollout.prompt_ids) + len(rollout.completion_ids)
        for model, size in vocabularies.items():
            if largest >= size:
                raise ValueError(
                    f"{rollout.name} holds token {largest}, and the {model}'s embedding has "
                    f"{size} rows: use rollouts of this student."
                )
        for model, limit in contexts.items():
            if length > limit:
                raise ValueError(
                    f"{rollout.name} is {length} tokens long with its response, and the {model} "
                    f"reads {limit} at most: use shorter rollouts."
                )


def _is_message(turn: Any) -> bool:
    return isinstance(turn, dict) and all(
        isinstance(turn.get(name), str) for name in ("role", "content")
    )


def _generate(
    engine: Engine, prompts: Sequence[RenderedPrompt], numbers: Sequence[int], sampling: Sampling
) -> Iterator[list[Rollout]]:
    requests = [
        Request(
            str(number),
            0,
            tuple(prompts[number].ids),
            sampling.pair_seed(SEED_NAME, str(number), 0),
        )
        for number in numbers
    ]
    for responses in engine.generate(requests, sampling) if requests else ():
        yield [
            Rollout(
                int(response.request.problem),
                prompts[int(response.request.problem)].text,
                list(response.request.prompt_ids),
                list(response.ids),
                response.finish_reason,
                prompts[int(response.request.problem)].messages,
            )
            for response in responses
        ]


def _read_parts(folder: Path, header: Mapping[str, Any]) -> list[Rollout]:
    """The rollouts of all processes' files; those that two of them hold once."""
    found: dict[int, Rollout] = {}
    for path in _parts(folder):
        written_under, rollouts, _ = parse_rows(path, Rollout)
        if written_under is not None:
            check_header(path, written_under, dict(header))
            found |= {rollout.prompt: rollout for rollout in rollouts}
    return list(found.values())


def _parts(folder: Path) -> list[Path]:
    return sorted([*folder.glob(FILE), *folder.glob("rollouts-[0-9]*.jsonl")])


def _part(folder: Path, process: int) -> Path:
    return folder / (FILE if process == 0 else f"rollouts-{process}.jsonl")
