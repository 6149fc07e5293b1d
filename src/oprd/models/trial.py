"""Optimizer, schedule and trackers of a run, tried before a model is loaded."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import (
    EarlyStoppingCallback,
    GenerationConfig,
    IntervalStrategy,
    SchedulerType,
    Trainer,
    TrainingArguments,
    get_scheduler,
)
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_utils import HubStrategy, SaveStrategy
from transformers.training_args import OptimizerNames, trainer_log_levels
from transformers.utils.import_utils import is_liger_kernel_available

KINDS = {
    name: tuple(str(each.value) for each in kind)
    for name, kind in {
        "lr_scheduler_type": SchedulerType,
        "optim": OptimizerNames,
        "eval_strategy": IntervalStrategy,
        "logging_strategy": IntervalStrategy,
        "save_strategy": SaveStrategy,
        "hub_strategy": HubStrategy,
    }.items()
} | {"log_level": tuple(trainer_log_levels), "log_level_replica": tuple(trainer_log_levels)}
# Of a run whose length follows from its data.
SOME_STEPS = 1000


def check_kinds(settings: Mapping[str, Any]) -> None:
    """Refuse, with a ValueError that names the setting, a name that is none of its kind's."""
    for name, kinds in KINDS.items():
        value = settings[name]
        if value not in kinds:
            hint = _hint(value, kinds)
            raise ValueError(f"{name} must be one of {', '.join(kinds)}, got {value!r}{hint}")


def _hint(value: object, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(str(value), known, n=1)
    return f": did you mean {str(close[0])!r}?" if close else "."


def try_parts(args: TrainingArguments) -> None:
    """Build what the settings name, on one weight, and throw it away.

    Raises:
        ImportError: a package is not installed; the message carries the command that installs it.
        ValueError: a setting names nothing, or one thing cannot be built with the other's options.
    """
    if args.use_liger_kernel and not is_liger_kernel_available():
        raise ImportError(
            "use_liger_kernel needs liger-kernel, which is not installed: pip install liger-kernel."
        )
    _try_trackers(cast(Sequence[str], args.report_to))
    _try_optimizer(args)
    _try_schedule(args)
    _try_loader(args)


def try_generation(options: Mapping[str, Any], cache: str | None) -> None:
    """Refuse, with a ValueError, what Transformers' generation does not take.

    Args:
        options: `generation_kwargs`.
        cache: `cache_implementation`.
    """
    known = vars(GenerationConfig())
    for name in options:
        if name not in known:
            raise ValueError(
                f"generation_kwargs: Transformers' generation has no {name!r}{_hint(name, known)}"
            )
    try:
        GenerationConfig(do_sample=True, cache_implementation=cache, **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"generation_kwargs or cache_implementation: {error}") from error


def check_metric(metric: str | None, tasks: Iterable[str]) -> None:
    """Refuse, with a ValueError, a `metric_for_best_model` that is a figure of a task.

    Transformers knows the figures of `eval_strategy` alone, and says so after the first of them.
    """
    name = (metric or "").removeprefix("eval_").removeprefix("eval/")
    if "@" in name or name.rpartition("/")[0] in [task.partition("=")[0] for task in tasks]:
        raise ValueError(
            f"metric_for_best_model={metric!r} is a figure of a task, and eval_strategy measures "
            f"none of them: leave it out, and set eval_tasks and keep_best={name!r} to keep the "
            "best student by it, and eval_patience to stop by it."
        )


def check_callbacks(callbacks: Iterable[Any], args: TrainingArguments) -> None:
    """Refuse, with a ValueError, early stopping by a figure that the run does not measure."""
    for callback in callbacks:
        kind = callback if isinstance(callback, type) else type(callback)
        if not issubclass(kind, EarlyStoppingCallback):
            continue
        if args.metric_for_best_model is None or args.eval_strategy == IntervalStrategy.NO:
            strategy = str(IntervalStrategy(args.eval_strategy).value)
            raise ValueError(
                f"{kind.__name__} stops by what eval_strategy measures, which eval_tasks are no "
                f"part of, and here eval_strategy={strategy!r} and metric_for_best_model="
                f"{args.metric_for_best_model!r}: set both, such as 'steps' and 'loss', and give "
                "an eval_dataset, or leave the callback out. By a task's figure a run stops with "
                "keep_best and eval_patience."
            )


def _try_trackers(names: Sequence[str]) -> None:
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            hint = _hint(name, INTEGRATION_TO_CALLBACK)
            raise ValueError(f"report_to must be none, all, or among {known}, got {name!r}{hint}")
        kind = INTEGRATION_TO_CALLBACK[name]
        try:
            # Without a destructor, of which one fails where construction did.
            type(kind.__name__, (kind,), {"__del__": lambda self: None})()
        # Each says in its own words what it lacks.
        except (RuntimeError, ImportError) as error:
            command = "" if "pip install" in str(error) else f" Run `pip install {name}`."
            raise ImportError(f"report_to={name!r}: {error}{command}") from error


def _try_optimizer(args: TrainingArguments) -> None:
    settings = f"optim={str(args.optim.value)!r}"  # pyright: ignore[reportAttributeAccessIssue]
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer):
            cast(Any, kind)([torch.nn.Parameter(torch.zeros(1))], **options)
    except ImportError as error:
        raise ImportError(f"{settings}: {error}") from error
    except Exception as error:  # whatever an optimizer's own package raises
        # Some look through the model's modules, which is not there yet.
        if "model" not in str(error):
            raise ValueError(f"{settings} with optim_args={args.optim_args!r}: {error}") from error


def _try_loader(args: TrainingArguments) -> None:
    try:
        DataLoader(
            cast(Any, [0]),
            num_workers=args.dataloader_num_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
        )
    except ValueError as error:
        raise ValueError(f"the settings dataloader_* do not fit together: {error}.") from error


def _try_schedule(args: TrainingArguments) -> None:
    steps = args.max_steps if args.max_steps > 0 else SOME_STEPS
    try:
        scheduler = get_scheduler(
            args.lr_scheduler_type,
            torch.optim.SGD([torch.zeros(1)], lr=args.learning_rate),
            args.get_warmup_steps(steps),
            steps,
            scheduler_specific_kwargs=cast(dict[str, Any] | None, args.lr_scheduler_kwargs),
        )
        if isinstance(scheduler, LambdaLR):
            rates = [scheduler.lr_lambdas[0](step) for step in (0, 1, steps // 2, steps)]
            if not all(math.isfinite(rate) and rate >= 0 for rate in rates):
                raise ValueError(f"it gives the factors {rates}")
    except Exception as error:  # whatever a schedule's arithmetic raises
        kind = str(args.lr_scheduler_type.value)  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            f"lr_scheduler_type={kind!r} with lr_scheduler_kwargs={args.lr_scheduler_kwargs!r}: "
            f"{error}"
        ) from error
