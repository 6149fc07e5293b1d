"""What a few tokens show of a model, on models that do otherwise than their configuration says."""

import pytest
import torch
from transformers import AutoModelForCausalLM, RecurrentGemmaConfig, RwkvConfig

from oprd.models.probe import (
    TOKENS,
    check_head,
    check_padding,
    check_readable,
    check_states,
    close,
    probe,
    stands_whole,
)
from tests import tiny
from tests.models import zoo
from tests.models.test_heads import GATED, SPECIAL, special


def leaking(name):
    config = {
        "rwkv": lambda: RwkvConfig(
            vocab_size=260, hidden_size=32, num_hidden_layers=2, intermediate_size=48
        ),
        "recurrent_gemma": lambda: RecurrentGemmaConfig(
            **{**GATED, "num_key_value_heads": 4}, lru_width=32
        ),
    }[name]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES, *tiny.HYBRIDS])
def test_models_that_are_read_rightly_pass(name):
    model = tiny.model(name)
    seen = probe(model)
    check_states(model, seen, "student", [1, 2, 3])
    check_head(model, seen, "student")
    check_padding(model, seen, "student", [1, 2, 3])


@pytest.mark.parametrize("name", sorted(set(SPECIAL) - {"recurrent_gemma"}))
def test_scales_caps_and_biases_that_are_read_rightly_pass(name):
    model = special(name)
    check_head(model, probe(model), "teacher")


@pytest.mark.parametrize("name", ["cohere", "granite", "gemma2"])
def test_a_number_of_the_configuration_that_the_model_does_not_apply_is_refused(name):
    model = special(name)
    names = {"cohere": "logit_scale", "granite": "logits_scaling", "gemma2": None}
    seen = probe(model)
    if names[name]:
        setattr(model.config, names[name], 3.0)
    else:
        model.config.final_logit_softcapping = None
    with pytest.raises(ValueError, match=r"teacher's LM head as it is read gives other logits"):
        check_head(model, seen, "teacher")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["rwkv", "recurrent_gemma"])
def test_padding_that_leaks_into_a_recurrent_state_is_refused_by_name(name):
    model = leaking(name)
    with pytest.raises(ValueError, match=r"changes the student's states by .*ForCausalLM lets it"):
        check_padding(model, probe(model), "student", [2])


def test_a_probe_leaves_the_mode_and_the_random_state_as_they_were():
    model = tiny.model(attention_dropout=0.5).train()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, second = probe(model), probe(model)
    assert torch.equal(torch.rand(3), expected)
    assert model.training
    assert torch.equal(first.logits, second.logits) and close(first.states, second.states)


def test_weights_on_the_meta_device_are_not_whole():
    with torch.device("meta"):
        assert not stands_whole(AutoModelForCausalLM.from_config(tiny.config("llama")))
    assert stands_whole(tiny.model())


LAYERS = [1, 2, 3]
NOT_A_STACK = "LlamaForCausalLM is not one stack of blocks that hand on one state"


@pytest.mark.parametrize(
    ("changed", "problem", "way_out"),
    [
        (lambda s: {1: s[1][None]}, r"8 tokens have \(1, 8, 32\) numbers in layer 1", "set layers"),
        (lambda s: {1: s[1][:4]}, r"8 tokens have \(4, 32\) numbers in layer 1", "set layers"),
        (lambda s: {2: s[2] + 1}, "they are not what it gives as its hidden_states", "set layers"),
        (lambda s: {3: s[3] + 1}, "they are not what it gives as its hidden_states", "output_loss"),
    ],
)
def test_states_that_are_not_transformers_own_rows_are_refused(changed, problem, way_out):
    model = tiny.model()
    seen = probe(model)
    seen = seen._replace(layers=seen.layers | changed(seen.layers))
    message = rf"the teacher's states cannot be read: {problem}.*{NOT_A_STACK}.*{way_out}"
    with pytest.raises(ValueError, match=message):
        check_states(model, seen, "teacher", LAYERS)


def test_a_block_that_did_not_run_is_named():
    model = tiny.model()
    seen = probe(model)
    del seen.layers[2]
    with pytest.raises(ValueError, match=r"without running all blocks, and layers \[2\] have none"):
        check_states(model, seen, "student", LAYERS)
    check_states(model, seen, "student", [1, 3])


@pytest.mark.parametrize("own", [None, ()])
def test_a_model_that_gives_no_states_of_its_own_is_refused(own):
    model = tiny.model()
    seen = probe(model)._replace(hidden_states=own)
    with pytest.raises(ValueError, match="3 blocks should give 4 hidden_states, and it gives"):
        check_states(model, seen, "student", LAYERS)


def test_states_numbered_from_the_first_block_are_those_of_the_same_blocks():
    model = tiny.model()
    seen = probe(model)
    own = seen.hidden_states
    assert own is not None
    check_states(model, seen._replace(hidden_states=(*own[1:3], own[2], own[3])), "student", LAYERS)


def test_states_that_are_not_finite_are_left_to_what_names_them():
    model = tiny.model()
    torch.nn.init.constant_(model.model.layers[0].input_layernorm.weight, torch.nan)
    check_readable(model, "student", LAYERS, heads=False, one_width=True)


def test_states_wider_than_the_configuration_says_are_refused_for_a_bridge_alone():
    model = tiny.model()
    seen = probe(model)
    own = seen.hidden_states
    assert own is not None
    wide = seen._replace(
        layers=seen.layers | {1: torch.cat([seen.layers[1]] * 2, dim=-1)},
        hidden_states=(own[0], torch.cat([own[1]] * 2, dim=-1), *own[2:]),
    )
    check_states(model, wide, "student", LAYERS, one_width=False)
    with pytest.raises(ValueError, match=rf"\({TOKENS}, 64\) numbers in layer 1, not \(8, 32\)"):
        check_states(model, wide, "student", LAYERS, one_width=True)


def test_a_model_that_wants_more_than_text_is_refused_with_what_it_says():
    model = tiny.model()

    def forward(*_: object, **__: object):
        raise TypeError("where are my pixels")

    model.forward = forward
    with pytest.raises(ValueError, match=r"text alone \(TypeError: where are my pixels\)\. Choose"):
        probe(model)


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_several_streams_serves_output_losses_alone():
    model = zoo.model("gemma3n_text")
    check_readable(model, "student", [], heads=True, one_width=True)
    for layers in ([1, 2], [zoo.LAYERS]):
        with pytest.raises(ValueError, match="or an output_loss with representation_weight=0"):
            check_readable(model, "student", layers, heads=False, one_width=False)
