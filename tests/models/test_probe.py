"""What a few tokens show of a model, on models that do otherwise than their configuration says."""

import pytest
import torch
from transformers import AutoModelForCausalLM, RecurrentGemmaConfig, RwkvConfig

from oprd.models.probe import check_head, check_padding, close, probe, stands_whole
from tests import tiny
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
    check_head(model, seen, "student")
    check_padding(model, seen, "student", [3])


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
