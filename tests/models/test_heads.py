import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    CohereConfig,
    FalconH1Config,
    Gemma2Config,
    GPTJConfig,
    GraniteConfig,
    ModernBertDecoderConfig,
    PhiConfig,
    RecurrentGemmaConfig,
)

from oprd.models.heads import lm_head
from oprd.models.reading import base_forward
from tests import tiny

GATED = {**tiny._COMMON, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
SPECIAL = {
    "cohere": lambda: CohereConfig(**GATED, logit_scale=0.25),
    "falcon_h1": lambda: FalconH1Config(
        **GATED, lm_head_multiplier=0.5, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_state=8
    ),
    "gemma2": lambda: Gemma2Config(**GATED, final_logit_softcapping=0.5),
    "gptj": lambda: GPTJConfig(vocab_size=260, n_embd=32, n_layer=2, n_head=4, rotary_dim=8),
    "granite": lambda: GraniteConfig(**GATED, logits_scaling=8.0),
    "phi": lambda: PhiConfig(**{**GATED, "num_key_value_heads": 4}),
    "recurrent_gemma": lambda: RecurrentGemmaConfig(
        **{**GATED, "num_key_value_heads": 4}, lru_width=32, logits_soft_cap=0.5
    ),
}


def special(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(SPECIAL[name]()).eval()
    head = model.get_output_embeddings()
    if head.bias is not None:
        torch.nn.init.normal_(head.bias)
    return model


def logits_by_head(model, ids):
    mask = torch.ones_like(ids)
    states = base_forward(model, ids, mask).last_hidden_state
    head = lm_head(model)
    return head.logits(states[0], out=torch.empty(ids.shape[1], head.vocab_size))


@pytest.mark.parametrize("name", [*tiny.ARCHITECTURES, *SPECIAL])
def test_a_head_that_is_read_gives_the_models_own_logits(name):
    model = special(name) if name in SPECIAL else tiny.model(name)
    ids = torch.randint(0, 256, (1, 6), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = logits_by_head(model, ids)
        expected = model(ids).logits[0].float()
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_head_of_a_peft_model_is_its_bases():
    base = tiny.model()
    wrapped = get_peft_model(base, LoraConfig(target_modules=["q_proj"]))
    assert lm_head(wrapped).weight is base.lm_head.weight


def test_a_head_that_trains_whole_beside_an_adapter_is_the_one_that_is_read():
    wrapped = get_peft_model(
        tiny.model(tie_word_embeddings=False),
        LoraConfig(target_modules=["q_proj"], modules_to_save=["lm_head"]),
    )
    weight = lm_head(wrapped).weight
    assert weight.requires_grad
    torch.nn.init.normal_(weight)
    ids = torch.arange(6)[None]
    with torch.no_grad():
        torch.testing.assert_close(logits_by_head(wrapped, ids), wrapped(ids).logits[0])


def test_a_head_with_an_adapter_is_refused_with_the_way_out():
    wrapped = get_peft_model(tiny.model(), LoraConfig(target_modules=["q_proj", "lm_head"]))
    with pytest.raises(ValueError, match=r"carries an adapter.*modules_to_save"):
        lm_head(wrapped)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(
            BertConfig(
                vocab_size=60,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=4,
                intermediate_size=48,
                is_decoder=True,
            ),
            id="bert",
        ),
        pytest.param(
            ModernBertDecoderConfig(
                vocab_size=60,
                hidden_size=32,
                num_hidden_layers=1,
                num_attention_heads=4,
                intermediate_size=48,
                pad_token_id=0,
                cls_token_id=1,
                sep_token_id=2,
                bos_token_id=1,
                eos_token_id=2,
            ),
            id="modernbert decoder",
        ),
    ],
)
def test_a_head_behind_another_layer_is_refused(config):
    with pytest.raises(ValueError, match="not one linear layer on the base model's last state"):
        lm_head(AutoModelForCausalLM.from_config(config))


def test_quantised_weights_are_refused():
    model = tiny.model(tie_word_embeddings=False)
    model.lm_head.weight = torch.nn.Parameter(
        torch.zeros(260, 32, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ValueError, match=r"its weights are torch\.int8, not floats"):
        lm_head(model)
