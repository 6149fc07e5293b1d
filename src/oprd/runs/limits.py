"""What the numbers among a run's settings may be, by their meaning.

TRL and Transformers have most of these settings, and look at few of them before they are used:
after models were loaded, or never.
"""

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any, NamedTuple, cast

# No count of anything here is larger.
MOST = 10**9


class Limit(NamedTuple):
    """The numbers from `least` to `most`.

    Attributes:
        ends: which of the two belong, as mathematicians write it: "[]", "(]", "[)" or "()".
        whole: whole numbers only.
        steps: likewise from 1 on; below 1 a share of all steps.
        also: what may stand in the place of a number.
    """

    least: float
    most: float = MOST
    ends: str = "[]"
    whole: bool = False
    steps: bool = False
    also: tuple[Any, ...] = ()

    def allows(self, value: Any) -> bool:
        """Whether a setting may have this value."""
        if value is None or isinstance(value, str | bool):
            return value in self.also
        if not isinstance(value, Integral if self.whole else Real):
            return False
        number: Any = value
        inside = self.least <= number <= self.most
        at_open_end = (number == self.least and self.ends[0] == "(") or (
            number == self.most and self.ends[1] == ")"
        )
        fraction = self.steps and inside and number > 1 and number != int(number)
        return (inside and not at_open_end and not fraction) or number in self.also

    def words(self, value: Any) -> str:
        """What a setting must be, for a person who gave this value."""
        low = f"{'at least' if self.ends[0] == '[' else 'above'} {self.least:g}"
        high = f"{'at most' if self.ends[1] == ']' else 'below'} {self.most:g}"
        number = isinstance(value, Real) and not isinstance(value, bool)
        bounds = (
            f"{low} and {high}"
            if self.most < MOST or (number and cast(Any, value) > self.most)
            else low
        )
        kind = f"a whole number of {bounds}" if self.whole else bounds if number else "a number"
        share = ", and whole, or below 1 as a share of all steps" if self.steps else ""
        return kind + share + "".join(f", or {other!r}" for other in self.also)


def _whole(least: int, most: int = MOST, also: tuple[Any, ...] = ()) -> Limit:
    return Limit(least, most, whole=True, also=also)


def _steps(also: tuple[Any, ...] = ()) -> Limit:
    return Limit(0, steps=True, also=also)


NONE = (None,)
COUNT = _whole(1)
SEED = 2**32 - 1
SAMPLING = {
    "temperature": Limit(0, ends="(]"),
    "top_p": Limit(0, 1, "(]"),
    "top_k": _whole(-1),
    "min_p": Limit(0, 1, also=NONE),
    "repetition_penalty": Limit(0, 100, "()"),
}
LIMITS = {
    # How long, and how much at once.
    "max_steps": _whole(1, also=(-1,)),
    "num_train_epochs": Limit(0),
    "per_device_train_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "per_device_eval_batch_size": COUNT,
    "eval_accumulation_steps": _whole(1, also=NONE),
    "torch_empty_cache_steps": _whole(1, also=NONE),
    "pad_to_multiple_of": _whole(1, also=(*NONE, "auto")),
    # When something is done.
    "warmup_steps": _steps(),
    "logging_steps": _steps(),
    "save_steps": _steps(),
    "eval_steps": _steps(also=NONE),
    "eval_delay": Limit(0),
    "save_total_limit": _whole(1, also=NONE),
    # The optimizer.
    "learning_rate": Limit(0, 100, "()"),
    "weight_decay": Limit(0, 1000),
    "adam_beta1": Limit(0, 1, "[)"),
    "adam_beta2": Limit(0, 1, "[)"),
    "adam_epsilon": Limit(0, 1, "(]"),
    "max_grad_norm": Limit(0, also=(*NONE, float("inf"))),
    "neftune_noise_alpha": Limit(0, also=NONE),
    # Rollouts.
    **SAMPLING,
    "max_completion_length": _whole(1, also=NONE),
    "max_tool_calling_iterations": _whole(0, also=NONE),
    "rollouts_per_prompt": COUNT,
    "updates_per_rollout": COUNT,
    "rollouts_ahead": COUNT,
    "teacher_prefix_length": _whole(1, also=NONE),
    "replay": _whole(0),
    "replay_share": Limit(0, 1, "()"),
    "curriculum_floor": Limit(0, 1, "()"),
    "max_drift_kl": Limit(0, ends="(]", also=NONE),
    "sample_steps": _whole(0),
    "eval_patience": _whole(1, also=NONE),
    "position_k": COUNT,
    "vllm_server_port": _whole(1, 65535),
    "vllm_group_port": _whole(1, 65535),
    "vllm_server_timeout": Limit(0, ends="(]"),
    "vllm_gpu_memory_utilization": Limit(0, 1, "(]"),
    "vllm_max_model_length": _whole(1, also=NONE),
    "vllm_tensor_parallel_size": COUNT,
    # The teacher.
    "ema_decay": Limit(0, 1, "[)"),
    "teacher_server_timeout": Limit(0, ends="(]"),
    "extrapolation": Limit(0, 100, "()"),
    # The objective.
    "diagnostics_steps": _whole(0),
    "bridge_rank": COUNT,
    "heads_rank": _whole(1, also=NONE),
    "bridge_prompts": _whole(2),
    # Evaluation.
    "eval_samples": COUNT,
    "false_progress_window": _whole(4),
    "eval_temperature": Limit(0),
    "eval_max_new_tokens": _whole(1, also=NONE),
    "eval_limit": _whole(1, also=NONE),
    "num_completions_to_print": _whole(1, also=NONE),
    # The machine.
    "seed": _whole(0, SEED),
    "data_seed": _whole(0, SEED, also=NONE),
    "dataloader_num_workers": _whole(0, 1024),
    "dataloader_prefetch_factor": _whole(1, also=NONE),
    "ddp_bucket_cap_mb": _whole(1, also=NONE),
    "ddp_timeout": COUNT,
    "local_rank": _whole(-1),
    # An adapter.
    "lora_r": COUNT,
    "lora_alpha": COUNT,
    "lora_dropout": Limit(0, 1, "[)"),
}
# What `generation_kwargs` may hold beside what shapes the distribution.
GENERATION = {
    **SAMPLING,
    "max_new_tokens": COUNT,
    "min_new_tokens": _whole(0, also=NONE),
    "min_length": _whole(0),
    "num_beams": COUNT,
    "no_repeat_ngram_size": _whole(0),
    "typical_p": Limit(0, 1, "(]"),
    "epsilon_cutoff": Limit(0, 1, "[)"),
    "eta_cutoff": Limit(0, 1, "[)"),
    "length_penalty": Limit(-100, 100),
}


def checked_numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers among settings that Transformers would take amiss, in the form that it takes.

    Raises:
        ValueError: a setting is beyond its limit; the message names it.
    """
    # A command line has text alone.
    multiple = str(settings["pad_to_multiple_of"]).lower()
    if multiple in ("none", "null") or multiple.isdigit():
        multiple = int(multiple) if multiple.isdigit() else None
    else:
        multiple = settings["pad_to_multiple_of"]
    check_limits({**settings, "pad_to_multiple_of": multiple}, LIMITS)
    if settings["save_strategy"] == "steps" and settings["save_steps"] == 0:
        raise ValueError("save_steps=0 saves nothing: set save_strategy to 'no' for that.")
    # A whole number may be refused where a float is meant.
    floats = {
        name: float(settings[name])
        for name, limit in LIMITS.items()
        if not (limit.whole or limit.steps) and settings.get(name) is not None
    }
    return floats | {
        # None clips nothing either, and Transformers would compare it with 0.
        "max_grad_norm": floats.get("max_grad_norm", 0.0),
        # -1 is vLLM's way to say all tokens.
        "top_k": max(settings["top_k"], 0),
        "pad_to_multiple_of": multiple,
    }


def check_limits(values: Mapping[str, Any], limits: Mapping[str, Limit], where: str = "") -> None:
    """Refuse, with a ValueError that names it, the first setting beyond its limit."""
    for name, limit in limits.items():
        if name in values and not limit.allows(values[name]):
            raise ValueError(
                f"{where}{name} must be {limit.words(values[name])}, got {values[name]!r}."
            )
