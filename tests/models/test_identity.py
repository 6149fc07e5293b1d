import pytest
from peft import LoraConfig, get_peft_model

from oprd.models.identity import student_facts
from tests import tiny


def facts(**options):
    model = get_peft_model(tiny.model(), LoraConfig(r=2, target_modules=["q_proj"], **options))
    return student_facts(model, new_adapter=True)["adapter"]


def test_an_adapter_is_known_by_every_option_also_by_those_that_are_not_set():
    found = facts()
    assert found["use_rslora"] is False and found["lora_dropout"] == 0.0
    assert found["layers_to_transform"] is None


@pytest.mark.parametrize("place", ["peft_version", "base_model_name_or_path", "inference_mode"])
def test_neither_a_version_of_peft_nor_a_place_makes_an_adapter_another(place):
    assert place not in facts()
