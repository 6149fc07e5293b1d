import math

import pytest

from oprd import OPRDConfig
from oprd.core.objective import OutputLoss


def config(**options):
    return OPRDConfig(**{"output_dir": "unused", "use_cpu": True, "report_to": [], **options})


def test_defaults_are_the_papers():
    made = config()
    assert (made.layers, made.positions, made.position_k) == ("all", "last_k", 2000)
    assert (made.normalize, made.reduction, made.representation_weight) == (False, "sequence", 1.0)
    assert (made.learning_rate, str(made.lr_scheduler_type), made.warmup_steps) == (
        1e-5,
        "SchedulerType.COSINE",
        0.03,
    )


def test_without_an_accelerator_training_is_in_float32():
    assert config().bf16 is False
    assert config(bf16=True).bf16 is True


@pytest.mark.parametrize(
    ("given", "spec"),
    [
        ("1,2,3", (1, 2, 3)),
        ("4", (4,)),
        (4, (4,)),
        ([2, 4], (2, 4)),
        ("even", "even"),
        ("every:4", "every:4"),
    ],
)
def test_layers_are_a_name_or_numbers(given, spec):
    assert config(layers=given).layer_spec == spec


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("layers", "middle", "layers must be"),
        ("layers", "0,1", "layer 0 is outside"),
        ("layers", "2,2", "layers repeat"),
        ("layers", [], "selects no layer"),
        ("layers", None, "layers must be a name or layer numbers, got None"),
        ("layers", "1,,2", "layers must be"),
        ("positions", "middle", "positions must be one of all, last, first_k, last_k"),
        ("position_k", 0, "position_k must be a whole number of at least 1, got 0"),
        ("position_k", 2.5, "position_k must be a whole number"),
        ("reduction", "mean", "reduction must be one of sequence, token"),
        ("representation_weight", 0.0, "representation_weight must be above 0"),
        ("representation_weight", math.nan, "representation_weight must be above 0"),
        ("rollouts_per_prompt", 0, "rollouts_per_prompt must be a whole number"),
        ("rollouts_per_prompt", 3, "a step holds 8 rollouts"),
        ("temperature", 0.0, "temperature must be above 0, got 0.0"),
        ("temperature", -1.0, "temperature must be above 0"),
        ("learning_rate", math.nan, "learning_rate must be above 0 and below 100, got nan"),
        ("learning_rate", 1e30, r"learning_rate must be above 0 and below 100, got 1e\+30"),
        ("learning_rate", -1.0, "learning_rate must be above 0"),
        ("learning_rate", "fast", "learning_rate must be a number, got 'fast'"),
        ("max_steps", 0, "max_steps must be at least 1"),
        ("max_steps", -2, "max_steps must be at least 1"),
        ("num_train_epochs", 0, "num_train_epochs must be above 0"),
        ("max_completion_length", 0, "max_completion_length must be a whole number"),
        ("long_prompts", "cut", "long_prompts must be one of error, drop"),
        ("beta", 0.5, r"beta=0.5 has no effect here.*output_loss and jsd_beta"),
        ("output_loss", "top1", "output_loss must be one of none, sampled, topk, reverse_kl"),
        ("output_weight", 0.0, "output_weight must be above 0"),
        ("loss_top_k", 0, "loss_top_k must be a whole number of at least 1"),
        ("loss_top_k_support", "both", "loss_top_k_support must be one of student, teacher, union"),
        ("jsd_beta", 1.5, "jsd_beta must be between 0 and 1, got 1.5"),
        ("jsd_beta", math.nan, "jsd_beta must be between 0 and 1"),
        ("jsd_beta", "half", "jsd_beta must be a number"),
        ("diagnostics_steps", -1, "diagnostics_steps must be a whole number of at least 0"),
    ],
)
def test_an_illegal_value_is_refused_at_construction(option, value, message):
    with pytest.raises(ValueError, match=message):
        config(**{option: value})


def test_an_output_loss_may_stand_alone_or_beside_the_representation_loss():
    assert config().output is None
    made = config(
        output_loss="topk",
        representation_weight=0,
        loss_top_k=4,
        loss_top_k_support="union",
        loss_top_k_renormalize=False,
        temperature=0.7,
        reduction="token",
    )
    assert made.output == OutputLoss(
        "topk", k=4, support="union", renormalize=False, temperature=0.7, reduction="token"
    )
    assert config(output_loss="jsd", jsd_beta=0.1, representation_weight=10.0).output.beta == 0.1


@pytest.mark.parametrize("weight", [-1.0, math.nan, True])
def test_a_representation_weight_below_zero_is_refused_with_an_output_loss_too(weight):
    with pytest.raises(ValueError, match="representation_weight must be"):
        config(output_loss="topk", representation_weight=weight)
