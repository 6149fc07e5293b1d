import pytest
import torch
from peft import (
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptEncoderConfig,
    PromptTuningConfig,
    get_peft_model,
)

from oprd.models.adapters import check_no_virtual_tokens, merged
from oprd.models.probe import close, probe
from tests import tiny
from tests.training.runs import LORA


def saved(folder, config, **options):
    """An adapter with weights that do something, saved beside its base."""
    base = tiny.model(seed=1, **options)
    base.save_pretrained(folder / "base")
    tiny.tokenizer().save_pretrained(folder / "base")
    wrapped = get_peft_model(base, config)
    generator = torch.Generator().manual_seed(3)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3
    wrapped.peft_config["default"].base_model_name_or_path = str(folder / "base")
    wrapped.save_pretrained(folder / "adapter")
    return str(folder / "adapter")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "target", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"], ["q_proj", "lm_head"]]
)
def test_what_is_merged_into_tied_weights_gives_the_logits_of_the_adapter_beside_them(
    tmp_path, target
):
    adapter = saved(tmp_path, LoraConfig(r=4, target_modules=target), tie_word_embeddings=True)
    beside = PeftModel.from_pretrained(tiny.model(seed=1, tie_word_embeddings=True), adapter)
    base = tiny.model(seed=1, tie_word_embeddings=True)
    assert not close(probe(base).logits, probe(beside).logits)
    assert close(probe(merged(base, adapter, None)).logits, probe(beside).logits)


def test_tied_weights_that_no_adapter_touches_stay_tied(tmp_path):
    adapter = saved(tmp_path, LoraConfig(**LORA), tie_word_embeddings=True)
    model = merged(tiny.model(seed=1, tie_word_embeddings=True), adapter, None)
    assert model.lm_head.weight is model.get_input_embeddings().weight


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_with_added_tokens_says_that_the_base_must_be_resized(tmp_path):
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    adapter = saved(tmp_path, config, tie_word_embeddings=False, vocab_size=270)
    with pytest.raises(ValueError, match=r"another number of tokens .*resize that base"):
        merged(tiny.model(seed=1, tie_word_embeddings=False), adapter, None)


@pytest.mark.parametrize("kind", [PromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig])
def test_adapters_of_virtual_tokens_are_refused_by_kind(kind):
    config = kind(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ValueError, match=r"the teacher is a \w+ adapter, whose virtual tokens"):
        check_no_virtual_tokens([config], "teacher")
    check_no_virtual_tokens([LoraConfig(**LORA)], "teacher")
