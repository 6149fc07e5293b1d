"""Responses that the teacher begins: which they are, and how the student goes on with them."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from oprd.models.generate import left_pad
from oprd.models.reader import Reader
from oprd.rollouts.written import Rollout
from oprd.settings.run import OPRDConfig

# What was drawn, and the log-probabilities of its tokens where they are known.
Drawn = tuple[list[int], Tensor | None]
# Given prompts and the most tokens of what follows, it writes what follows.
Write = Callable[[list[list[int]], int], list[Drawn]]


def begun_by_teacher(
    args: OPRDConfig, step: int, rows: int, process: int, processes: int
) -> list[bool]:
    """Of the rollouts that a process writes before a step, which the teacher begins.

    They are spread evenly over the rollouts of a run, counted over steps and processes: so the
    share is met by small batches too, and is the same however many processes share them. In a step
    all prompts in the usual order are counted before those that a curriculum asks again.

    Args:
        args: of the run.
        step: from 0.
        rows: how many they are, those of every step that is written at once after each other.
        process: its number.
        processes: how many there are.
    """
    share = args.prefix_share(step)
    written, usual = args.written_per_step, args.loaded_per_step
    part, own_usual = written // processes, usual // processes
    before = step // args.updates_per_rollout * written

    def begins(row: int) -> bool:
        turn, own = divmod(row, part)
        of_others = process * own_usual
        if own >= own_usual:
            # Behind the usual ones of all processes.
            of_others = usual - own_usual + process * (part - own_usual)
        place = before + turn * written + of_others + own
        return math.floor((place + 1) * share) > math.floor(place * share)

    return [begins(row) for row in range(rows)]


def write_begun(
    prompt_ids: list[list[int]],
    begun: Sequence[bool],
    begin: Callable[[list[int], int], list[list[int]]],
    go_on: Write,
    *,
    length: int | None,
    limit: int,
    ends: Sequence[int],
    context: int | None = None,
) -> list[Rollout]:
    """Let the teacher begin some responses, and the student write the rest of all.

    Args:
        prompt_ids: of all.
        begun: which the teacher begins.
        begin: given the places of these and the most tokens, what the teacher writes.
        go_on: what the student writes.
        length: tokens of the beginning; None for the whole response.
        limit: most tokens of a response.
        ends: tokens that end one.
        context: the longest sequence that the student reads.
    """
    chosen = [place for place, own in enumerate(begun) if own]
    most = limit if length is None else min(length, limit)
    begins = dict(zip(chosen, begin(chosen, most), strict=True)) if chosen else {}
    begins = {place: ids[:most] for place, ids in begins.items()}
    rollouts = [
        Rollout(asked, list(begins.get(place, [])), len(begins.get(place, [])))
        for place, asked in enumerate(prompt_ids)
    ]
    # An empty beginning is one that stopped at once: nothing follows it.
    done = {
        place
        for place, ids in begins.items()
        if len(ids) < most or most == limit or ids[-1] in ends
    }
    open_ones = [rollout for place, rollout in enumerate(rollouts) if place not in done]
    longest = max((len(r.prompt_ids) + r.by_teacher for r in open_ones), default=0)
    room = limit - min((r.by_teacher for r in open_ones), default=0)
    groups = [open_ones]
    if context is not None and longest + room > context:
        # At once, those that were begun would be written on beyond what the student reads.
        own = [r for r in open_ones if not r.by_teacher]
        groups = [own, [r for r in open_ones if r.by_teacher]]
    for group in groups:
        if not group:
            continue
        room = limit - min(r.by_teacher for r in group)
        rest = go_on([r.prompt_ids + r.response_ids for r in group], room)
        for rollout, (ids, log_probs) in zip(group, rest, strict=True):
            rollout.response_ids = (rollout.response_ids + ids)[:limit]
            known = len(rollout.response_ids) - rollout.by_teacher
            rollout.log_probs = None if log_probs is None else log_probs[:known]
    return rollouts


def teacher_writes(
    reader: Reader,
    student: nn.Module,
    prompt_ids: list[list[int]],
    config: Any,
    limit: int,
    ends: Sequence[int],
    device: torch.device,
) -> list[list[int]]:
    """Responses of the teacher, drawn as the student's are and in tokens that the student has.

    Args:
        reader: the teacher.
        student: not wrapped, for a teacher on its base.
        prompt_ids: what the teacher is asked.
        config: of Transformers, how the student writes.
        limit: most tokens.
        ends: tokens that end a response.
        device: on which it reads.
    """
    model: Any = reader.own(student)
    both: tuple[Any, Any] = (model, student)
    rows, known = (own.config.get_text_config().vocab_size for own in both)
    config = copy.deepcopy(config)
    config.max_new_tokens = limit
    if rows > known:
        config.suppress_tokens = [*(config.suppress_tokens or ()), *range(known, rows)]
    inputs = left_pad(prompt_ids, config.pad_token_id)
    with reader.writing(student):
        found = model.generate(
            **{name: tensor.to(device) for name, tensor in inputs.items()}, generation_config=config
        )
    rests = found[:, inputs["input_ids"].shape[1] :].tolist()
    return [cut(ids, ends) for ids in rests]


def cut(ids: list[int], ends: Sequence[int]) -> list[int]:
    """A response up to its first end token, which stays."""
    end = next((place for place, token in enumerate(ids) if token in ends), None)
    return ids if end is None else ids[: end + 1]
