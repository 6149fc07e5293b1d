"""A run's first rollout as the models read it, for a person who wants to see that it is right."""

from collections.abc import Mapping, Sequence
from io import StringIO
from itertools import groupby
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oprd.models.views import OWN_IDS, OWN_MASK, OWN_ROWS, PROMPT_IDS, PROMPT_MASK, WEIGHTS
from oprd.text import escaped, shortened

# Characters of a prompt, and of a response.
SHOWN = 600
# Tokens that are shown one by one.
TOKENS = 120
# Columns of a terminal, for two prompts beside each other, and the place where both go on.
WIDTH = 100
BEGINS = "▮"


def first_rollout(
    tokenizer: Any, batch: Mapping[str, Any], supervised: Any, own_tokenizer: Any = None
) -> str:
    """The prompt, and the response with what is supervised between ⟦ and ⟧, in a line each.

    Where the teacher reads a prompt of its own, both prompts stand side by side in the place of the
    first line; where it reads tokens of its own, these follow in a line of their own.

    Args:
        tokenizer: the student's.
        batch: a generation batch of TRL's, of which the first row is shown.
        supervised: [K] bool, which of the row's response tokens are.
        own_tokenizer: the teacher's, where it reads tokens of its own.
    """
    reader = tokenizer if own_tokenizer is None else own_tokenizer
    prompt = batch["prompt_ids"][0][batch["prompt_mask"][0].bool()].tolist()
    written = batch["completion_mask"][0].bool()
    response = batch["completion_ids"][0][written].tolist()
    supervised = supervised[written].tolist()
    marked = ""
    for inside, group in groupby(zip(response, supervised, strict=True), key=lambda pair: pair[1]):
        text = _text(tokenizer, [token for token, _ in group])
        marked += f"⟦{text}⟧" if inside else text
    shown = _text(tokenizer, prompt)
    asked = f"First prompt as the student reads it, {len(prompt)} tokens: {shown}"
    if PROMPT_IDS in batch:
        own = teacher_prompts(batch, 0)
        further = f" (and {len(own) - 1} more)" if len(own) > 1 else ""
        asked = _side_by_side(
            (f"First prompt as the student reads it, {len(prompt)} tokens", shown),
            (f"As the teacher does, {len(own[0])} tokens{further}", _text(reader, own[0])),
        )
    shown = (
        f"{asked}\n"
        f"Its response, {len(response)} tokens, of which the {sum(supervised)} between ⟦ and ⟧ are "
        f"supervised: {marked}"
    )
    return shown if own_tokenizer is None else f"{shown}\n{own_response(reader, batch, 0)}"


def own_response(tokenizer: Any, batch: Mapping[str, Any], row: int) -> str:
    """A response in the teacher's own tokens, as a line.

    Args:
        tokenizer: the teacher's.
        batch: a generation batch of TRL's.
        row: of it.
    """
    ids = batch[OWN_IDS][row][batch[OWN_MASK][row].bool()].tolist()
    met = batch[OWN_ROWS][row].tolist()
    behind = ", and the state behind them" if met[len(ids)] else ""
    return (
        f"The teacher reads it as {len(ids)} tokens of its own; those between ⟦ and ⟧ are "
        f"predicted where both have read the same{behind}: "
        f"{marked_tokens(tokenizer, ids, met[: len(ids)])}"
    )


def teacher_prompts(batch: Mapping[str, Any], row: int) -> list[list[int]]:
    """The prompts that a teacher reads of its own, as tokens of a row of a generation batch."""
    both = zip(batch[PROMPT_IDS][row], batch[PROMPT_MASK][row], strict=True)
    weighs = (batch[WEIGHTS][row] > 0).tolist()
    own = [ids[there.bool()].tolist() for ids, there in both]
    return [ids for ids, counts in zip(own, weighs, strict=True) if counts]


def plain_tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens as text, one by one, with | between them; the middle of many is left out."""
    return marked_tokens(tokenizer, ids, [False] * len(ids))


def marked_tokens(tokenizer: Any, ids: Sequence[int], supervised: Sequence[bool]) -> str:
    """The same, with what is supervised between ⟦ and ⟧."""
    pieces = [escaped(text) for text in _pieces(tokenizer, ids)]
    both = list(zip(pieces, supervised, strict=True))
    if len(both) > TOKENS:
        both = [*both[: TOKENS // 2], ("…", False), *both[len(both) - TOKENS // 2 :]]
    groups = groupby(both, key=lambda pair: pair[1])
    joined = ((inside, "|".join(piece for piece, _ in group)) for inside, group in groups)
    return "|".join(f"⟦{text}⟧" if inside else text for inside, text in joined)


def _pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Each token's text behind another's: some tokenizers leave out a space that comes first."""
    before = list(tokenizer("a", add_special_tokens=False)["input_ids"])[-1:]
    known = str(tokenizer.decode(before))
    found: list[str] = []
    for token in ids:
        text = str(tokenizer.decode([*before, token]))
        own = text.startswith(known)
        found.append(text[len(known) :] if own else str(tokenizer.decode([token])))
    return found


def _side_by_side(*columns: tuple[str, str]) -> str:
    """Titles and texts beside each other, with a sign where the response begins."""
    table = Table(expand=True)
    for title, _ in columns:
        table.add_column(title, ratio=1, overflow="fold")
    table.add_row(*(Text(text + BEGINS) for _, text in columns))
    console = Console(file=StringIO(), width=WIDTH, color_system=None)
    console.print(table)
    console.print(f"{BEGINS} is where the response begins, the same for both.")
    return cast(StringIO, console.file).getvalue().rstrip("\n")


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return escaped(shortened(str(tokenizer.decode(list(ids))), SHOWN))
