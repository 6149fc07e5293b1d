"""The memory that a run is going to hold at most, before its first step."""

from typing import Any, cast

from accelerate.utils import DistributedType
from datasets import IterableDataset

from oprd.models.distributions import Distributions
from oprd.models.memory import Estimate, Sizes, estimate
from oprd.training.trainer import OPRDTrainer

SPLIT = (DistributedType.FSDP, DistributedType.DEEPSPEED)
# Prompts whose texts are longest, of which one has most tokens.
LONGEST = 8
# Of a stream, whose end nobody knows.
LOOKED_AT = 256


def estimate_run(trainer: OPRDTrainer, *, resumes: bool = False) -> Estimate:
    """What a run holds at most on each device, before its first step.

    Args:
        trainer: of the run.
        resumes: whether it goes on from a checkpoint, with the learning rate that was found.

    Raises:
        ValueError: models are split over devices, in pieces that are not here to be counted.
    """
    args = trainer.args
    kind = args.distributed_state and args.distributed_state.distributed_type
    if kind in SPLIT or trainer.is_fsdp_enabled:
        raise ValueError("models are split over devices")
    written = args.written_per_step * args.rollouts_ahead // args.world_size
    evaluated = args.per_device_eval_batch_size if args.eval_tasks else 0
    options = cast(dict[str, Any], args.gradient_checkpointing_kwargs or {})
    sizes = Sizes(
        batch=args.per_device_train_batch_size,
        rollouts=max(written, evaluated),
        prompt=longest_prompt(trainer),
        response=args.max_completion_length or 0,
        layers=sorted({pair.student for pair in trainer.pairs}),
        distributions=_distributions(trainer),
        checkpointing=options if args.gradient_checkpointing else None,
        accumulates=args.gradient_accumulation_steps > 1,
    )
    return estimate(
        trainer.student,
        trainer.readers,
        sizes,
        str(cast(Any, args.optim).value),
        autocast=trainer.accelerator.autocast,
        searches=args.finds_rate and not resumes,
    )


def _distributions(trainer: OPRDTrainer) -> Distributions | None:
    """What the stages compare of next-token distributions, and what drift or diagnostics read."""
    args = trainer.args
    losses = [o.output for o in args.objectives() if o.output is not None]
    if not losses and not args.diagnostics_steps and not args.measures_drift:
        return None
    classes = None if trainer.aligned is None else trainer.aligned.classes.met.count
    return Distributions(losses, classes)


def longest_prompt(trainer: OPRDTrainer) -> int:
    """Tokens of the longest prompt; of a stream, among the first."""
    rows: Any = trainer.train_dataset
    rows = rows.select_columns("prompt")
    if isinstance(rows, IterableDataset):
        rows = rows.take(LOOKED_AT)
    prompts = sorted((row["prompt"] for row in rows), key=lambda prompt: len(str(prompt)))
    ids, *_ = trainer._tokenize_prompts(prompts[-LONGEST:])
    return max(map(len, ids))
