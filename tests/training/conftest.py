import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests import tiny
from tests.training.runs import LORA


@pytest.fixture
def places(tmp_path):
    """A base model and a teacher adapter on it, in folders."""
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tiny.model(seed=1).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    wrapped = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.data = torch.randn_like(parameter) / 3
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(adapter)
    return str(base), str(adapter)
