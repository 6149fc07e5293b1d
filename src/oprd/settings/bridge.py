"""What follows from the bridge of a run, where settings leave it out."""

from typing import TYPE_CHECKING

from oprd.core.bridge.bases import HEADS, usual_prompts
from oprd.core.bridge.file import bases_in
from oprd.settings.stages import parse_stages

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig

FIT = "fit"


def settle_bridge(settings: "OPRDConfig") -> None:
    """Fill in how many prompts a fit reads, and the layers that meet."""
    if settings.bridge_prompts is None:
        settings.bridge_prompts = usual_prompts(settings.bridge_basis)
    if settings.layers is None:
        heads = any(_is_of_heads_alone(name, settings) for name in _named(settings))
        settings.layers = "last" if heads else "all"


def _named(settings: "OPRDConfig") -> list[object]:
    """The bridges of the run and of its stages."""
    stages = parse_stages(settings.stages) or []
    return [settings.bridge, *(stage.get("bridge") for stage in stages)]


def _is_of_heads_alone(name: object, settings: "OPRDConfig") -> bool:
    if name == FIT:
        return settings.bridge_basis == HEADS
    return isinstance(name, str) and set(bases_in(name)) == {HEADS}
