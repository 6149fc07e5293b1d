"""What the size of states does to their squared distance."""

from oprd.core.objective import STATE_LOSSES
from oprd.core.states.loss import has_scale
from oprd.values import check_choice

SCALES = ("none", "layer", "unit")


def settled_scale(given: str | None, state_loss: str, *, summed: bool) -> str:
    """A name in `SCALES`: the one that is given, or the loss's own.

    Args:
        given: None leaves the choice.
        state_loss: a name in `STATE_LOSSES`.
        summed: whether both LM heads' logits are compared in the place of all states.

    Raises:
        ValueError: it is unknown, or for another loss.
    """
    scaled = has_scale(STATE_LOSSES[state_loss])
    if given is None:
        return "unit" if scaled and not summed else "none"
    check_choice("scale", given, SCALES)
    if given != "none" and not scaled:
        takes = " or ".join(name for name, kind in STATE_LOSSES.items() if has_scale(kind))
        raise ValueError(
            f"scale={given!r} is for state_loss={takes}: {state_loss!r} does not look at the size "
            "of states, so leave it out."
        )
    if given != "none" and summed:
        raise ValueError(
            f"scale={given!r} is for states, and bridge_basis='heads' compares logits: "
            "leave it out."
        )
    return given
