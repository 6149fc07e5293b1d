"""What OPRD reads of every causal language model of Transformers, and the page that says so.

    python -m tests.models.architectures --write

writes `docs/architectures.md` anew. Each model is built small, with random weights, and asked
twice: what a run would say before its first rollout, and, where that is yes, whether it is true.

Letters: T tokens, L blocks.
"""

import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from oprd.core.capture import blocks, num_layers
from oprd.models.heads import lm_head
from oprd.models.probe import check_head, check_readable, probe
from oprd.models.reading import View, read
from oprd.models.windowed import check_windows, read_windowed
from tests.models import zoo

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
TEXTS = list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
PICTURES = [
    name
    for name, kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES.items()
    if MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(name) != kind
]
# Their own `hidden_states` begin with the first block's: layer l stands at l - 1.
WITHOUT_EMBEDDING = {"falcon_mamba", "mamba", "mamba2"}
YES, NO, ALL, LAST, NOT_ASKED = "yes", "no", "all", "last", "–"
LENGTHS = (9, 6)
# Of what a refusal says, the part that differs between models and not between machines.
REASONS = (
    r"states cannot be read: (.*?)\. \w+ is not one stack",
    r"(does not run on a few tokens of text alone)",
    r"(cannot find the blocks of .*?)\. Choose",
    r"(padding before a sequence changes) the student's (states)",
    r"LM head of \w+ cannot be read: (.*?)(?:: |\. )",
    r"(LM head as it is read gives other logits) than",
    r"apart from its window: (states of layer \d+ differ from a whole forward pass)",
    r"apart from its window: (blocks \[.*?\] keep other than keys and values)",
    r"apart from its window: (.*?)\. Set",
)
HEADER = """\
# Architectures

Which models OPRD reads, under Transformers {version}. A test builds each small, with random
weights, and compares: what is captured of its layers with Transformers' own `hidden_states` of the
same tokens, alone and behind left padding; whether a gradient reaches every block and the
embedding; the LM head as output-space losses read it with the model's logits; and states in
windows with those of a whole forward pass (`prefix_gradients=False`).

Real weights are tried on 20 tokens when a trainer is made, and when `oprd bridge fit` starts: what
is "no" below is refused there, in one sentence, before the first rollout. What only long sequences
show is not seen: beyond 8,192 columns, Llama 4 scales its attention by columns, padding included,
as it does where it generates.

"last" is a model of which `layers='last'` alone can be compared. Output losses need the last states
and the LM head, and no other layer (`representation_weight=0`).

{counts}

`python -m tests.models.architectures --write` writes this page.
"""
COLUMNS = "| model type | states | left padding | output losses | constant prefix | note |"


@dataclass(frozen=True)
class Row:
    """What is known of one kind of model, for each column."""

    name: str
    states: str = NOT_ASKED
    padding: str = NOT_ASKED
    output: str = NOT_ASKED
    prefix: str = NOT_ASKED
    note: str = ""

    @property
    def right(self) -> bool:
        """Whether states of all layers can be compared."""
        return (self.states, self.padding) == (ALL, YES)

    def line(self) -> str:
        """The row of the table."""
        cells = (self.states, self.padding, self.output, self.prefix, self.note)
        return f"| `{self.name}` | {' | '.join(cells)} |"


def examine(name: str, *, pictures: bool = False) -> Row:
    """Ask a kind of model what it is asked before a run, and hold it to the answer.

    Raises:
        AssertionError: it is accepted, and what is read of it is wrong.
    """
    try:
        model = zoo.model(name, pictures=pictures)
    except Exception as error:  # whatever a configuration says to sizes that are not its own
        return Row(name, note=f"not built here: {type(error).__name__}")
    if reason := refusal(lambda: num_layers(model)):
        return Row(name, NO, note=reason)
    depth = num_layers(model)
    chosen = {ALL: range(1, depth + 1), LAST: [depth], NO: []}
    reasons: dict[str, str] = {}
    for states, layers in chosen.items():
        reasons[states] = refusal(partial(_accept, model, layers))
        if not reasons[states]:
            break
    else:
        about_padding = "padding" in reasons[ALL]
        return Row(name, *((ALL, NO) if about_padding else (NO,)), note=reasons[ALL])
    shift = name in WITHOUT_EMBEDDING
    if layers:
        assert_states_are_right(model, layers, shift=shift)
    head = refusal(lambda: check_head(model, probe(model), "student"))
    if not head:
        assert_logits_are_right(model)
    prefix = refusal(lambda: check_windows(model))
    if not prefix:
        assert_windows_are_right(model)
    notes = {
        "": reasons[ALL],
        "layer l is `hidden_states[l - 1]` in Transformers": shift,
        f"output losses: {head}": head,
        f"constant prefix: {prefix}": prefix,
    }
    note = "; ".join(text or str(holds) for text, holds in notes.items() if holds)
    return Row(name, states, YES, NO if head else YES, NO if prefix else YES, note)


def refusal(check: Callable[[], Any]) -> str:
    """The short reason of a check that refuses, empty where it does not."""
    try:
        check()
    except ValueError as error:
        text = " ".join(str(error).split())
        for reason in REASONS:
            if found := re.search(reason, text):
                return " ".join(found.groups())
        raise AssertionError(f"a refusal without a known reason: {text}") from error
    return ""


def assert_states_are_right(model: Any, layers: Sequence[int], *, shift: bool) -> None:
    """Rows of a padded batch are Transformers' states of each sequence alone, with gradients."""
    ids, mask = batch()
    states = read(model, View.of_texts(ids, mask), layers).states
    with torch.no_grad():
        own = [
            model(input_ids=sequence, output_hidden_states=True, use_cache=False).hidden_states
            for sequence in sequences()
        ]
    for layer in layers:
        at = layer - 1 if shift and layer < num_layers(model) else layer
        _same(states[layer], torch.cat([of[at][0] for of in own]), f"layer {layer}")
    model.zero_grad()
    sum((state.square().sum() for state in states.values()), torch.zeros(())).backward()
    for number, block in enumerate([*blocks(model), model.get_input_embeddings()]):
        gradients = [p.grad for p in block.parameters() if p.grad is not None]
        assert any(gradient.any() for gradient in gradients), f"no gradient reaches block {number}"
    model.zero_grad()


@torch.no_grad()
def assert_logits_are_right(model: Any) -> None:
    """A head that is read gives the model's logits, of other tokens than the check's."""
    first, head, last = sequences()[0], lm_head(model), num_layers(model)
    rows = read(model, View.of_texts(first), [last]).states[last]
    logits = head.logits(rows, out=torch.empty(len(rows), head.vocab_size))
    own = model(input_ids=first, use_cache=False).logits[0, :, : head.vocab_size]
    _same(logits, own, "logits")


@torch.no_grad()
def assert_windows_are_right(model: Any) -> None:
    """States in windows of a padded batch are those of a whole forward pass."""
    ids, mask = batch()
    rows = torch.zeros_like(mask, dtype=torch.bool)
    rows[0, 4:7] = rows[1, 7:] = True
    view, layers = View(ids, mask, rows, rows), range(1, num_layers(model) + 1)
    whole, windowed = read(model, view, layers).states, read_windowed(model, view, layers, rows)
    for layer in layers:
        _same(windowed.states[layer], whole[layer], f"window of layer {layer}")


def sequences() -> list[torch.Tensor]:
    """Two of unequal lengths, each [1, T]."""
    return [4 + torch.arange(length)[None] * 11 % 250 for length in LENGTHS]


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """The same, padded on the left, with their mask, [2, T]."""
    width = max(LENGTHS)
    padded = [torch.nn.functional.pad(s, (width - s.shape[1], 0)) for s in sequences()]
    columns = torch.arange(width)
    return torch.cat(padded), torch.stack([columns >= width - n for n in LENGTHS]).long()


def rows(names: Iterable[str], *, pictures: bool = False) -> Iterator[Row]:
    """One for each kind of model."""
    for name in names:
        try:
            yield examine(name, pictures=pictures)
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error


def page(texts: Sequence[Row], pictures: Sequence[Row]) -> str:
    """The whole page."""
    version = transformers.__version__
    return "\n".join(
        [
            HEADER.format(version=version, counts=counts([*texts, *pictures])),
            "## Causal language models\n",
            *_table(texts),
            "\n## Models that read pictures too, on text alone\n",
            *_table(pictures),
            "",
        ]
    )


def counts(found: Sequence[Row]) -> str:
    """How many of each kind there are, in a sentence."""
    right = sum(row.right for row in found)
    unbuilt = sum(row.note.startswith("not built") for row in found)
    return (
        f"Of {len(found)} kinds of model the states of {right} are read, "
        f"{len(found) - right - unbuilt} are refused,\n"
        f"and {unbuilt} could not be built at this size or without other packages."
    )


def rows_of_page(text: str) -> dict[str, str]:
    """The lines of either table by heading and model type."""
    found, heading = {}, ""
    for line in text.splitlines():
        heading = line if line.startswith("## ") else heading
        if match := re.match(r"\| `([^`]+)`", line):
            found[f"{heading}: {match[1]}"] = line
    return found


def _table(found: Sequence[Row]) -> list[str]:
    return [COLUMNS, "|---|---|---|---|---|---|", *(row.line() for row in found)]


def _accept(model: Any, layers: Sequence[int]) -> None:
    """As a run does; one that compares no states is one of output losses."""
    check_readable(model, "student", layers, heads=not layers, one_width=False)


def _same(found: torch.Tensor, expected: torch.Tensor, what: str) -> None:
    assert found.shape == expected.shape, f"{what}: {found.shape} is not {expected.shape}"
    error = float((found - expected).norm() / expected.norm())
    assert error < 1e-4, f"{what} is off by {error:.1e}"


def main(*arguments: str) -> None:
    if arguments != ("--write",):
        sys.exit(__doc__)
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    torch.set_num_threads(1)
    PAGE.write_text(page(list(rows(TEXTS)), list(rows(PICTURES, pictures=True))))


if __name__ == "__main__":
    main(*sys.argv[1:])
