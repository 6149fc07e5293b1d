"""What both LM heads see of a state, and whether output-space losses can read them."""

from typing import Any

import torch

from oprd.core.output.head import LMHead
from oprd.core.output.spectrum import head_spectrum
from oprd.models.heads import lm_head
from oprd.models.probe import Probe, check_head


def compare_heads(student: Any, teacher: Any, seen: tuple[Probe, Probe]) -> dict[str, Any]:
    """Spectra of both heads, as JSON can hold them.

    Args:
        student: a causal language model.
        teacher: likewise.
        seen: what each makes of a few tokens.

    Returns:
        under `student` and `teacher` each head's figures, or the `problem` that keeps an
        output-space loss from reading it; and whether they are the `same`.
    """
    roles = zip(("student", "teacher"), (student, teacher), seen, strict=True)
    heads = {role: _readable(model, probe, role) for role, model, probe in roles}
    ours, theirs = heads["student"], heads["teacher"]
    same = (
        isinstance(ours, LMHead)
        and isinstance(theirs, LMHead)
        and ours.weight.shape == theirs.weight.shape
        and torch.equal(ours.weight, theirs.weight.to(ours.weight))
    )
    found = {"student": _figures(ours)}
    return {**found, "teacher": found["student"] if same else _figures(theirs), "same": same}


def _readable(model: Any, seen: Probe, role: str) -> LMHead | str:
    """A head, or why it cannot be read."""
    try:
        check_head(model, seen, role)
    except ValueError as error:
        return str(error)
    return lm_head(model).detach()


def _figures(head: LMHead | str) -> dict[str, Any]:
    if isinstance(head, str):
        return {"problem": head}
    spectrum = head_spectrum(head.weight)
    return {
        "vocabulary": head.vocab_size,
        "rank": spectrum.rank,
        "condition": spectrum.condition,
        "values": spectrum.values.tolist(),
    }
