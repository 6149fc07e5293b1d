"""The objective (Eq. 7): the one place where terms meet.

    L = w · L_output + µ · L_representation

on one rollout, from one forward pass of each model. Each term is a sum over its own positions,
divided by its own count over the whole batch, so that its factor keeps its meaning whatever
positions the other supervises. Both losses are chosen by name from the two tables here: a further
one is a file, a test and a line.
"""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from oprd.core.output.divergence import JSD, ForwardKL, ReverseKL, SampledToken, TopK
from oprd.core.output.loss import OutputLoss
from oprd.core.output.skewed import SkewedKL
from oprd.core.reduction import LossSum
from oprd.core.states.distance import SquaredDistance
from oprd.core.states.gram import GramDistance
from oprd.core.states.loss import StateLoss

STATE_LOSSES: dict[str, type[StateLoss]] = {
    "mse": SquaredDistance,
    "gram": GramDistance,
}

OUTPUT_LOSSES: dict[str, type[OutputLoss]] = {
    "sampled": SampledToken,
    "topk": TopK,
    "reverse_kl": ReverseKL,
    "forward_kl": ForwardKL,
    "jsd": JSD,
    "skewed_kl": SkewedKL,
}

Loss = TypeVar("Loss", StateLoss, OutputLoss)


class Term(NamedTuple):
    """A part of the objective.

    Attributes:
        name: what it is called in logs.
        weight: its factor.
        loss: the total of one micro-batch, and the count of the whole batch.
    """

    name: str
    weight: float
    loss: LossSum

    @property
    def mean(self) -> Tensor:
        """The micro-batch's share of the term's mean, scalar; zero where nothing is supervised."""
        total, count = self.loss
        return total / count.to(total.device).clamp(min=1)


def objective(terms: Iterable[Term]) -> Tensor:
    """Σ weight · total / count over the terms (Eq. 7), a scalar with their graphs.

    Summed over the micro-batches and processes of a batch, it is the loss of that batch, however
    it was split.

    Raises:
        ValueError: there is no term.
    """
    weighted = [term.weight * term.mean for term in terms]
    if not weighted:
        raise ValueError("an objective needs at least one term.")
    # Models may stand on several devices.
    return torch.stack([value.to(weighted[0].device) for value in weighted]).sum()


def make_loss(
    table: Mapping[str, type[Loss]], name: str, options: Mapping[str, Any], setting: str
) -> Loss:
    """A loss by its name in one of the tables.

    Args:
        table: `STATE_LOSSES` or `OUTPUT_LOSSES`.
        name: in the table.
        options: its parameters; what is left out has its default.
        setting: what messages call the name; `<setting>_kwargs` are the options.

    Raises:
        ValueError: the name or a parameter is unknown (the closest one is named), or a value is out
            of bounds.
    """
    if name not in table:
        raise ValueError(f"{setting} must be one of {_listed(name, table)}, got {name!r}.")
    kind = table[name]
    known = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType] # dataclasses all
    for option in options:
        if option not in known:
            takes = f"takes {_listed(option, known)}" if known else "takes no parameters"
            raise ValueError(f"{setting}_kwargs: {name!r} {takes}, got {option!r}.")
    try:
        return kind(**options)
    except ValueError as error:
        raise ValueError(f"{setting}_kwargs: {error}") from error


def _listed(wanted: str, known: Iterable[str]) -> str:
    """All known names, and the closest one where there is one."""
    known = list(known)
    close = difflib.get_close_matches(str(wanted), known, n=1)
    return ", ".join(known) + (f" (did you mean {close[0]}?)" if close else "")
