"""A run's first rollout as the student reads it, for a person who wants to see that it is right."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from oprd.text import escaped, shortened

# Characters of a prompt, and of a response.
SHOWN = 600
# Tokens that are shown one by one.
TOKENS = 120


def first_rollout(tokenizer: Any, batch: Mapping[str, Any], supervised: Any) -> str:
    """Two lines: the prompt, and the response with what is supervised between ⟦ and ⟧.

    Args:
        tokenizer: the student's.
        batch: a generation batch of TRL's, of which the first row is shown.
        supervised: [K] bool, which of the row's response tokens are.
    """
    prompt = batch["prompt_ids"][0][batch["prompt_mask"][0].bool()].tolist()
    written = batch["completion_mask"][0].bool()
    response = batch["completion_ids"][0][written].tolist()
    supervised = supervised[written].tolist()
    marked = ""
    for inside, group in groupby(zip(response, supervised, strict=True), key=lambda pair: pair[1]):
        text = _text(tokenizer, [token for token, _ in group])
        marked += f"⟦{text}⟧" if inside else text
    return (
        f"First prompt as the student reads it, {len(prompt)} tokens: {_text(tokenizer, prompt)}\n"
        f"Its response, {len(response)} tokens, of which the {sum(supervised)} between ⟦ and ⟧ are "
        f"supervised: {marked}"
    )


def plain_tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens as text, one by one, with | between them; the middle of many is left out."""
    return marked_tokens(tokenizer, ids, [False] * len(ids))


def marked_tokens(tokenizer: Any, ids: Sequence[int], supervised: Sequence[bool]) -> str:
    """The same, with what is supervised between ⟦ and ⟧."""
    pieces = [escaped(str(tokenizer.decode([token]))) for token in ids]
    both = list(zip(pieces, supervised, strict=True))
    if len(both) > TOKENS:
        both = [*both[: TOKENS // 2], ("…", False), *both[len(both) - TOKENS // 2 :]]
    groups = groupby(both, key=lambda pair: pair[1])
    joined = ((inside, "|".join(piece for piece, _ in group)) for inside, group in groups)
    return "|".join(f"⟦{text}⟧" if inside else text for inside, text in joined)


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return escaped(shortened(str(tokenizer.decode(list(ids))), SHOWN))
