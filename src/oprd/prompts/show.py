"""A run's first rollout as the student reads it, for a person who wants to see that it is right."""

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from oprd.text import escaped, shortened

# Characters of a prompt, and of a response.
SHOWN = 600


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


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return escaped(shortened(str(tokenizer.decode(list(ids))), SHOWN))
