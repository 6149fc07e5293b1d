"""Settings of Transformers and TRL that have no effect here, or another than they say."""

from collections.abc import Mapping
from typing import Any

_COMPILED = "it would compile whole models, and here their bases are called. Leave it out"
_ORDER = (
    "prompts come in an order of the run's own. Leave it out, and set shuffle_dataset to false for "
    "that of the dataset"
)
# Their default, and why.
UNUSED = {
    "beta": (
        1.0,
        "it chooses among TRL's divergences. Leave it out, and choose with output_loss and "
        "output_loss_kwargs",
    ),
    "label_smoothing_factor": (0.0, "rollouts have no labels. Leave it out"),
    "torch_compile": (False, _COMPILED),
    "torch_compile_backend": (None, _COMPILED),
    "torch_compile_mode": (None, _COMPILED),
    "auto_find_batch_size": (
        False,
        "a step has as many rollouts as settings say, whatever memory they take. Leave it out, and "
        "lower per_device_train_batch_size for more gradient_accumulation_steps",
    ),
    "train_sampling_strategy": ("random", _ORDER),
    "length_column_name": ("length", _ORDER),
    "average_tokens_across_devices": (
        True,
        "a mean is over what all processes supervise, always. Leave it out",
    ),
}
# Options of `accelerator_config` by which a batch would be another than settings say.
ACCELERATOR = {
    "split_batches": (
        "each process would be dealt a part of what it loads for itself. Leave it out, and set "
        "per_device_train_batch_size to the rollouts of one process"
    ),
    "dispatch_batches": (
        "one process would load for all, and what it sends are tensors, which prompts are not. "
        "Leave it out"
    ),
    "num_steps": (
        "it would change gradient_accumulation_steps after that was checked. Set that instead"
    ),
}


def check_unused(settings: Mapping[str, Any]) -> None:
    """Refuse, with a ValueError, a setting that would have no effect."""
    for name, (default, reason) in UNUSED.items():
        if settings[name] != default:
            raise ValueError(f"{name}={settings[name]} has no effect here: {reason}.")


def check_accelerator(options: Mapping[str, Any]) -> None:
    """Refuse, with a ValueError, an option of `accelerator_config` that cannot be meant."""
    given = {**options, **(options["gradient_accumulation_kwargs"] or {})}
    for name, reason in ACCELERATOR.items():
        if given.get(name):
            raise ValueError(f"accelerator_config: {name}={given[name]} cannot be meant: {reason}.")
