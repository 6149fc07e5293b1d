import math
import re
from typing import Any

import pytest

from oprd import OPRDConfig
from oprd.core.output.divergence import JSD, TopK
from oprd.core.states.distance import SquaredDistance
from oprd.core.states.gram import GramDistance
from oprd.values import RENAMED


def config(**options):
    return OPRDConfig(**{"output_dir": "unused", "use_cpu": True, "report_to": [], **options})


def test_defaults_are_the_papers_but_for_unit_length():
    made = config()
    assert (made.layers, made.positions, made.position_k) == ("all", "last_k", 2000)
    assert (made.scale, made.reduction, made.representation_weight) == ("unit", "sequence", 10.0)
    assert (made.learning_rate, str(made.lr_scheduler_type), made.warmup_steps) == (
        1e-5,
        "SchedulerType.COSINE",
        0.03,
    )


@pytest.mark.parametrize(
    ("options", "weight"),
    [
        ({}, 10.0),
        ({"bridge": "fit"}, 10.0),
        ({"scale": "none"}, 1.0),
        ({"scale": "layer"}, 1.0),
        ({"state_loss": "gram"}, 1.0),
        ({"bridge": "fit", "bridge_basis": "heads", "layers": "last"}, 1.0),
        ({"bridge": "fit", "bridge_basis": "pca+heads"}, 1.0),
        ({"representation_weight": 3.0}, 3.0),
        ({"scale": "none", "representation_weight": 3.0}, 3.0),
    ],
)
def test_the_weight_follows_the_scale_unless_it_is_given(options, weight):
    assert config(**options).representation_weight == weight


def test_a_stage_that_sets_the_scale_has_its_weight():
    stages = [{"steps": 1}, {"steps": 1, "scale": "none"}, {"steps": 1, "representation_weight": 2}]
    of_stages = config(stages=stages).objectives()
    assert [(s.scale, s.representation_weight) for s in of_stages] == [
        ("unit", 10.0),
        ("none", 1.0),
        ("unit", 2),
    ]


def test_options_of_accelerate_that_leave_a_batch_alone_are_taken():
    taken = {"split_batches": False, "dispatch_batches": False, "non_blocking": True}
    made: Any = config(accelerator_config=taken).accelerator_config
    assert made.non_blocking and made.split_batches is False
    config(accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}})


@pytest.mark.parametrize("given", [None, 0])
def test_no_clipping_is_a_norm_of_zero_as_transformers_has_it(given):
    made = config(max_grad_norm=given)
    assert made.max_grad_norm == 0.0 and isinstance(made.max_grad_norm, float)


@pytest.mark.parametrize(("given", "seed"), [({}, 42), ({"seed": 7}, 7), ({"data_seed": 0}, 0)])
def test_prompts_come_by_a_seed_of_their_own_where_one_is_given(given, seed):
    assert config(**given).order_seed == seed


SAVED = {"save_strategy": "steps", "max_steps": -1}


@pytest.mark.parametrize("several", [{"updates_per_rollout": 2}, {"rollouts_ahead": 2}])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**SAVED, "save_steps": 0.1}, r"save_steps=0.1 is a share .*=2: set it to .*max_steps\."),
        (
            {"save_strategy": "best", "metric_for_best_model": "loss", "eval_strategy": "steps",
             "eval_steps": 0.1},
            "eval_steps=0.1 is a share of steps of which nobody knows yet how many they are",
        ),
        ({**SAVED, "save_steps": 4, "num_train_epochs": 0.5}, "num_train_epochs=0.5 may end the"),
    ],
)  # fmt: skip
def test_steps_that_nobody_knows_yet_must_not_cut_into_what_is_written_at_once(
    several, given, message
):
    with pytest.raises(ValueError, match=message):
        config(**several, **given)
    config(**given)
    config(**{**several, **given, "max_steps": 40})


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
        ("layers", "1,,2", "layers must be"),
        ("layers", "last:0", "layers must be"),
        (
            "layer_pairing",
            "similar",
            r"one of proportional, .*did you mean similarity\?\), or pairs",
        ),
        ("layer_pairing", "1:1,2", "such as '1:1,2:3', got '1:1,2'"),
        ("layer_pairing", "1:1,1:2", "names student layer 1 more than once"),
        ("layer_pairing", None, "layer_pairing must be one of"),
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
        ("beta", 0.5, r"beta=0.5 has no effect here.*output_loss and output_loss_kwargs"),
        ("auto_find_batch_size", True, "has no effect here: .* lower per_device_train_batch_size"),
        ("train_sampling_strategy", "group_by_length", "has no effect here: .* shuffle_dataset"),
        ("train_sampling_strategy", "sequential", "no effect here: .* shuffle_dataset to false"),
        ("length_column_name", "tokens", "length_column_name=tokens has no effect here"),
        ("average_tokens_across_devices", False, "has no effect here: a mean is over .* all proce"),
        (
            "accelerator_config",
            {"split_batches": True},
            "accelerator_config: split_batches=True cannot be meant: .*per_device_train_batch_size",
        ),
        ("accelerator_config", {"dispatch_batches": True}, "dispatch_batches=True cannot be meant"),
        (
            "accelerator_config",
            {"gradient_accumulation_kwargs": {"num_steps": 4}},
            "num_steps=4 cannot be meant: it would change gradient_accumulation_steps",
        ),
        ("output_loss", "top1", "output_loss must be one of none, sampled, topk, reverse_kl"),
        ("output_weight", 0.0, "output_weight must be above 0"),
        ("output_loss", "topkk", "got 'topkk': did you mean 'topk'"),
        ("output_loss_kwargs", {"k": 4}, "output_loss_kwargs={'k': 4} needs an output_loss"),
        (
            "output_loss_kwargs",
            [4],
            r"output_loss_kwargs must be a mapping of parameters, got \[4\]",
        ),
        ("output_loss_kwargs", "k=4", "output_loss_kwargs must be a JSON object"),
        (
            "state_loss",
            "msse",
            "state_loss must be one of mse, gram, got 'msse': did you mean 'mse'",
        ),
        ("state_loss", ["gram"], r"state_loss must be one of mse, gram, got \['gram'\]"),
        ("output_loss", ["topk"], r"output_loss must be one of none, .*, got \['topk'\]"),
        ("scale", ["unit"], r"scale must be one of none, layer, unit, got \['unit'\]"),
        ("bridge_basis", ["pca"], r"bridge_basis must be one of .*, got \['pca'\]"),
        ("state_loss_kwargs", {"unit": True}, "'mse' takes unit_length, summed, got 'unit'"),
        ("state_loss_kwargs", {"unit_length": True}, "unit_length is set by scale='unit'"),
        (
            "scale",
            "units",
            "scale must be one of none, layer, unit, got 'units': did you mean 'unit'",
        ),
        ("scale", True, "scale must be one of none, layer, unit, got True"),
        ("diagnostics_steps", -1, "diagnostics_steps must be a whole number of at least 0"),
    ],
)
def test_an_illegal_value_is_refused_at_construction(option, value, message):
    with pytest.raises(ValueError, match=message):
        config(**{option: value})


@pytest.mark.parametrize(
    ("loss", "parameters", "message"),
    [
        ("topk", {"k": 0}, "k must be a whole number of at least 1, got 0"),
        ("topk", {"k": 2.5}, "k must be a whole number of at least 1, got 2.5"),
        ("topk", {"support": "both"}, "support must be one of .*'union'.*got 'both'"),
        ("topk", {"renormalize": "no"}, "renormalize must be true or false, got 'no'"),
        ("topk", {"suport": "union"}, r"did you mean support\?\), got 'suport'"),
        ("jsd", {"beta": 1.5}, "beta must be between 0 .* and 1 .*got 1.5"),
        ("jsd", {"beta": math.nan}, "beta must be between 0 .* and 1"),
        ("jsd", {"beta": "half"}, "beta must be between 0 .* and 1 .*got 'half'"),
        ("reverse_kl", {"k": 4}, "'reverse_kl' takes no parameters, got 'k'"),
        ("skewed_kl", {"alpha": 1}, r"alpha must be at least 0 .* and below 1 .*, got 1\."),
    ],
)
def test_a_parameter_that_the_loss_does_not_take_is_refused(loss, parameters, message):
    with pytest.raises(ValueError, match=f"output_loss_kwargs: .*{message}"):
        config(output_loss=loss, output_loss_kwargs=parameters)


def test_a_scale_is_refused_where_the_state_loss_does_not_look_at_sizes():
    for scale in ("unit", "layer"):
        with pytest.raises(ValueError, match=f"scale='{scale}' is for state_loss=mse: 'gram' does"):
            config(state_loss="gram", scale=scale)
    with pytest.raises(ValueError, match=r"stage 2: scale='unit' is for state_loss=mse"):
        config(scale="unit", stages=[{"steps": 1}, {"steps": 1, "state_loss": "gram"}])
    # That of a bridge is for the losses that have one.
    stages = [{"steps": 1}, {"steps": 1, "state_loss": "gram"}]
    settings = config(bridge="fit", stages=stages).objectives()
    assert [stage.scale for stage in settings] == ["unit", "none"]
    assert [stage.state for stage in settings] == [
        SquaredDistance(unit_length=True),
        GramDistance(),
    ]


def test_a_loss_between_positions_is_refused_where_a_response_has_one():
    for one in (
        {"positions": "last"},
        {"position_k": 1},
        {"positions": "first_k", "position_k": 1},
        {"positions": "all", "max_completion_length": 1},
    ):
        with pytest.raises(ValueError, match=r"state_loss='gram' .* supervise 2 or more by pos"):
            config(state_loss="gram", **one)
        with pytest.raises(ValueError, match="state_loss='gram'"):
            config(stages=[{"steps": 1}, {"steps": 1, "state_loss": "gram"}], **one)
        # Where nothing is asked of it, and of a loss that looks at one state at a time.
        config(state_loss="gram", representation_weight=0, output_loss="topk", **one)
        config(**one)
    config(state_loss="gram", position_k=2)


@pytest.mark.parametrize("name", ["state_loss", "output_loss", "scale", "state_loss_kwargs"])
def test_a_list_in_a_stage_is_refused_in_a_sentence(name):
    with pytest.raises(ValueError, match=rf"stage 1: {name} must be .*, got \['unit'\]"):
        config(stages=[{"steps": 1, name: ["unit"]}])


def test_pairs_and_layers_that_name_other_layers_are_refused_at_construction():
    with pytest.raises(ValueError, match=r"layers \[1, 2\], and layers=\(1, 3\) selects others"):
        config(layer_pairing="1:1,2:2", layers="1,3")
    assert config(layer_pairing="1:1,2:2", layers="2,1").layer_spec == (2, 1)
    # What a name selects is known with the model.
    assert config(layer_pairing="1:1,3:2", layers="odd").layers == "odd"


@pytest.mark.parametrize("name", RENAMED)
def test_a_setting_of_an_earlier_version_is_refused_with_its_new_name(name):
    with pytest.raises(ValueError, match=f"{name} has become {re.escape(RENAMED[name])}"):
        config(**{name: 1})
    with pytest.raises(ValueError, match=f"{name} has become"):
        config(stages=[{"steps": 1, name: 1}])


def test_a_stage_with_another_loss_begins_with_parameters_of_its_own():
    made = config(
        output_loss="topk",
        output_loss_kwargs={"k": 4},
        stages=[{"steps": 1}, {"steps": 1, "output_loss": "jsd"}],
    )
    assert [stage.output for stage in made.objectives()] == [TopK(k=4), JSD()]


def test_an_output_loss_may_stand_alone_or_beside_the_representation_loss():
    assert config().output is None
    made = config(
        output_loss="topk",
        representation_weight=0,
        output_loss_kwargs={"k": 4, "support": "union", "renormalize": False},
        temperature=0.7,
        reduction="token",
    )
    assert made.output == TopK(k=4, support="union", renormalize=False)
    # As a command line gives it.
    made = config(output_loss="jsd", output_loss_kwargs='{"beta": 0.1}', representation_weight=10.0)
    assert made.output == JSD(0.1)


@pytest.mark.parametrize("weight", [-1.0, math.nan, True])
def test_a_representation_weight_below_zero_is_refused_with_an_output_loss_too(weight):
    with pytest.raises(ValueError, match="representation_weight must be"):
        config(output_loss="topk", representation_weight=weight)


@pytest.mark.parametrize(
    ("options", "settled"),
    [
        ({}, ("all", 2000)),
        ({"bridge": "fit"}, ("all", 2000)),
        ({"bridge": "fit", "bridge_basis": "heads"}, ("last", 128)),
        ({"bridge": "fit", "bridge_basis": "heads", "layers": "2"}, ("2", 128)),
        ({"bridge": "fit", "bridge_basis": "pca+heads"}, ("all", 2000)),
        ({"bridge": "fit", "bridge_basis": "heads", "bridge_prompts": 7}, ("last", 7)),
        (
            {"bridge_basis": "heads", "stages": [{"steps": 1}, {"steps": 1, "bridge": "fit"}]},
            ("last", 128),
        ),
        ({"bridge": "not/there.safetensors"}, ("all", 2000)),
    ],
)
def test_what_is_not_said_of_a_bridge_follows_from_what_is(options, settled):
    made = config(**options)
    assert (made.layers, made.bridge_prompts) == settled
    again = config(**{**options, "layers": made.layers, "bridge_prompts": made.bridge_prompts})
    assert again.to_dict() == made.to_dict()


def test_a_bridge_of_one_number_at_unit_length_teaches_nothing_and_is_refused():
    with pytest.raises(ValueError, match="bridge_rank=1 leaves one number of a state"):
        config(bridge="fit", bridge_rank=1)
    config(bridge="fit", bridge_rank=1, scale="none")
