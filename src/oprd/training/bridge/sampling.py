"""How a run draws its rollouts, for the bridge that is fitted before its first step."""

from collections.abc import Mapping
from typing import Any, cast

from accelerate.logging import get_logger

from oprd.evaluation.sampling import Sampling
from oprd.training.bridge.provenance import UNSHAPED, drawn_rollouts
from oprd.training.config import OPRDConfig

logger = get_logger(__name__)


def run_sampling(args: OPRDConfig) -> Sampling:
    """One rollout a prompt, drawn as the run draws its own; what cannot be followed is named.

    Raises:
        ValueError: there is no length limit, or a value is out of range.
    """
    if args.max_completion_length is None:
        raise ValueError("bridge='fit' needs max_completion_length, the limit of its rollouts.")
    if ignored := sorted(set(_generation_kwargs(args)) - set(UNSHAPED)):
        logger.warning(
            f"bridge='fit' writes its rollouts without {', '.join(ignored)} of generation_kwargs, "
            "so that they differ from those that the run trains on: where that matters, set bridge "
            "to a file that `oprd bridge fit --rollouts` made of the run's own."
        )
    return Sampling(
        1, max_new_tokens=args.max_completion_length, seed=args.seed, **_run_shaping(args)
    )


def run_rollouts(args: OPRDConfig) -> dict[str, Any]:
    """How the run draws its rollouts, as a bridge's provenance names it."""
    return drawn_rollouts(_run_shaping(args), args.max_completion_length, template_options(args))


def template_options(args: OPRDConfig) -> dict[str, Any]:
    """What the run's chat template is given."""
    return dict(cast(Mapping[str, Any], args.chat_template_kwargs or {}))


def _run_shaping(args: OPRDConfig) -> dict[str, Any]:
    """The run's values of `UNSHAPED`."""
    further = _generation_kwargs(args)
    # As TRL has it, generation_kwargs go before settings of the same name.
    given = {name: further.get(name, getattr(args, name)) for name in UNSHAPED}
    shaping = {**UNSHAPED, **{name: v for name, v in given.items() if v is not None}}
    # -1 is vLLM's way to say all tokens.
    return shaping | ({"top_k": 0} if shaping["top_k"] == -1 else {})


def _generation_kwargs(args: OPRDConfig) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], args.generation_kwargs or {})
