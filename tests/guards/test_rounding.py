"""What a person is told of a student whose weights train in half precision."""

from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from peft import LoraConfig, get_peft_model

from oprd.guards.rounding import warn_of_rounding
from oprd.runs.warned import read_warnings
from tests import tiny
from tests.training.runs import LORA, trainer

ALONE = SimpleNamespace(distributed_type=DistributedType.NO, mixed_precision="no")


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [text for text in caplog.messages if "lost to rounding" in text]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_that_train_in_half_precision_are_warned_of_with_the_way_out(dtype, caplog):
    warn_of_rounding(tiny.model().to(getattr(torch, dtype)), ALONE)
    (text,) = said(caplog)
    assert f"train in {dtype}, where" in text and "load them in float32 (dtype: float32)" in text


def test_one_layer_in_half_precision_is_enough(caplog):
    student = tiny.model()
    student.base_model.layers[0].bfloat16()
    warn_of_rounding(student, ALONE)
    assert len(said(caplog)) == 1


def test_a_run_is_told_once_and_keeps_it(tmp_path, caplog):
    trainer(tmp_path, student=tiny.model(seed=1).bfloat16()).train()
    assert len(said(caplog)) == 1
    kept = [text for _, text in read_warnings(tmp_path)]
    assert said(caplog)[0] in kept


@pytest.mark.parametrize("autocast", [False, True])
def test_float32_weights_beside_a_frozen_teacher_in_bfloat16_are_not(tmp_path, caplog, autocast):
    trainer(tmp_path, teacher=tiny.model(seed=2).bfloat16(), bf16=autocast)
    assert not said(caplog)


def test_an_adapter_is_judged_by_its_own_weights_and_not_by_its_base(tmp_path, caplog):
    base, lora = tiny.model(seed=1).bfloat16(), LoraConfig(**LORA)
    trainer(tmp_path / "new", student=base, peft_config=lora)
    assert not said(caplog)
    given = get_peft_model(tiny.model(seed=1).bfloat16(), lora, autocast_adapter_dtype=False)
    trainer(tmp_path / "given", student=given)
    assert len(said(caplog)) == 1


@pytest.mark.parametrize(
    ("kind", "precision", "warned"),
    [
        ("MULTI_GPU", "bf16", True),
        ("DEEPSPEED", "no", False),
        ("FSDP", "bf16", False),
        ("FSDP", "no", True),
    ],
)
def test_where_float32_copies_are_stepped_nothing_is_lost(caplog, kind, precision, warned):
    accelerator = SimpleNamespace(distributed_type=DistributedType[kind], mixed_precision=precision)
    warn_of_rounding(tiny.model().bfloat16(), accelerator)
    assert bool(said(caplog)) == warned


def test_adapters_that_trl_casts_to_bfloat16_are_left_at_that(caplog):
    student = tiny.model().bfloat16()
    student.is_loaded_in_4bit = True
    warn_of_rounding(student, ALONE)
    assert not said(caplog)
