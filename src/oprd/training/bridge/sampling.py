"""How a run draws its rollouts, for the bridge that is fitted before its first step."""

from collections.abc import Mapping
from typing import Any, cast

from accelerate.logging import get_logger

from oprd.evaluation.sampling import Sampling
from oprd.training.config import OPRDConfig

SHAPING = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")

logger = get_logger(__name__)


def run_sampling(args: OPRDConfig) -> Sampling:
    """One rollout a prompt, drawn as the run draws its own; what cannot be followed is named.

    Raises:
        ValueError: there is no length limit, or a value is out of range.
    """
    if args.max_completion_length is None:
        raise ValueError("bridge='fit' needs max_completion_length, the limit of its rollouts.")
    further = cast(Mapping[str, Any], args.generation_kwargs or {})
    if ignored := sorted(set(further) - set(SHAPING)):
        logger.warning(
            f"bridge='fit' writes its rollouts without {', '.join(ignored)} of generation_kwargs, "
            "so that they differ from those that the run trains on: where that matters, set bridge "
            "to a file that `oprd bridge fit --rollouts` made of the run's own."
        )
    # As TRL has it, generation_kwargs go before settings of the same name.
    given = {name: further.get(name, getattr(args, name)) for name in SHAPING}
    given = {name: value for name, value in given.items() if value is not None}
    given = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, **given}
    # -1 is vLLM's way to say all tokens.
    given["top_k"] = 0 if given["top_k"] == -1 else given["top_k"]
    return Sampling(1, max_new_tokens=args.max_completion_length, seed=args.seed, **given)


def template_options(args: OPRDConfig) -> dict[str, Any]:
    """What the run's chat template is given."""
    return dict(cast(Mapping[str, Any], args.chat_template_kwargs or {}))
