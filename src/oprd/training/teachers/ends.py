"""Where rollouts stop: at the end tokens of the student, or of either model."""

from typing import Any

from oprd.log import get_logger
from oprd.models.end_tokens import EndTokens

logger = get_logger(__name__)


def stop_at_either(trainer: Any, ends: EndTokens) -> None:
    """Let a trainer's student stop wherever its teacher does, in this run and once it is saved.

    Args:
        trainer: TRL's, whose engine is set up already.
        ends: of both models.
    """
    difference = ends.difference()
    if difference is None:
        return
    stops = [*ends.joined]
    trainer.eos_token_ids = stops
    trainer.generation_config.eos_token_id = stops
    trainer.generation_kwargs["eos_token_id"] = stops
    trainer.model.generation_config.eos_token_id = stops
    if trainer.use_vllm:
        engine = trainer.vllm_generation
        engine.generation_kwargs = {"stop_token_ids": stops, **engine.generation_kwargs}
    logger.warning(
        f"{difference} Rollouts stop at any of them, output-space losses take them for one token, "
        "and the student is saved with all of them; end_tokens='student' leaves it its own."
    )
