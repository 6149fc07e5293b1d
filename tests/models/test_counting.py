"""Models without values, and what a pass through one holds."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from oprd.models.counting import Live, bytes_of, loaded_in, tensors, without_values
from tests import tiny

HALF = partial(torch.autocast, "cpu", torch.bfloat16)


def passed(model, autocast, there, *, mode=None):
    with mode or nullcontext(), Live(there) as live:
        ids = torch.zeros(2, 24, dtype=torch.long)
        with autocast():
            logits = model(ids, use_cache=False).logits
        logits.sum().backward()
    return live.peak


@pytest.mark.parametrize("autocast", [nullcontext, HALF])
@pytest.mark.parametrize("saves", [False, True])
def test_a_pass_without_values_holds_what_one_with_values_does(autocast, saves):
    # Its mask is made of shapes alone: another attention leaves out one that hides nothing.
    model = tiny.model(attn_implementation="eager").train()
    if saves:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    mode = FakeTensorMode()
    shapes = without_values(model, mode)
    counted = passed(shapes, autocast, tensors(shapes), mode=mode)
    assert counted == pytest.approx(passed(model, autocast, tensors(model)), rel=0.01)


def test_what_is_there_already_does_not_count():
    layer, rows = nn.Linear(64, 64, bias=False), torch.zeros(1, 64)
    with Live(tensors(layer)) as live, torch.no_grad():
        layer(rows)
    assert live.peak == bytes_of([rows])
    with Live([rows, *tensors(layer)]) as live, torch.no_grad(), HALF():
        layer(rows)
    # What autocast makes of it does, beside the row before and after.
    assert live.peak == bytes_of(tensors(layer)) / 2 + 2 * bytes_of([rows]) / 2


def test_memory_that_tensors_share_is_counted_once():
    weight = torch.zeros(8, 8)
    assert bytes_of([weight, weight.T, weight[1:], torch.zeros(2)]) == 4 * (64 + 2)


@pytest.mark.parametrize("tied", [False, True])
def test_models_of_another_dtype_are_as_if_they_had_been_loaded_in_it(tied):
    halves = [tiny.model(seed=seed, tie_word_embeddings=tied).bfloat16() for seed in (0, 1)]
    halves[1].requires_grad_(False)
    whole = loaded_in(torch.float32, *halves)
    loaded = [tiny.model(tie_word_embeddings=tied) for _ in whole]
    for made, model in zip(whole, loaded, strict=True):
        assert made.dtype == torch.float32
        assert bytes_of(made.parameters()) == bytes_of(model.parameters())
        assert (made.lm_head.weight is made.model.embed_tokens.weight) == tied
    trains = [{weight.requires_grad for weight in made.parameters()} for made in whole]
    assert trains == [{True}, {False}]
    # Nothing was loaded, and the models are what they were.
    assert all(isinstance(weight, FakeTensor) for weight in whole[0].parameters())
    assert {model.dtype for model in halves} == {torch.bfloat16}
