import dataclasses

import pytest
from accelerate.utils import GradientAccumulationPlugin
from transformers.trainer_pt_utils import AcceleratorConfig

from oprd import OPRDConfig
from oprd.runs.unused import ACCELERATOR, UNUSED, check_accelerator, check_unused

FIELDS = {field.name: field for field in dataclasses.fields(OPRDConfig)}


@pytest.mark.parametrize("name", UNUSED)
def test_what_is_left_out_has_the_value_that_has_no_effect(name: str):
    assert FIELDS[name].default == UNUSED[name][0]


@pytest.mark.parametrize("name", ACCELERATOR)
def test_what_is_refused_is_an_option_of_accelerates(name: str):
    kinds = AcceleratorConfig, GradientAccumulationPlugin
    assert name in {field.name for kind in kinds for field in dataclasses.fields(kind)}


def test_what_libraries_take_for_granted_is_taken():
    check_unused({name: default for name, (default, _) in UNUSED.items()})
    check_accelerator(vars(AcceleratorConfig()))


@pytest.mark.parametrize("name", UNUSED)
def test_a_setting_without_effect_is_refused_with_its_value_and_the_way_out(name: str):
    settings = {name: default for name, (default, _) in UNUSED.items()} | {name: "other"}
    with pytest.raises(
        ValueError, match=rf"^{name}=other has no effect here: .* Leave it out.*\.$"
    ):
        check_unused(settings)
