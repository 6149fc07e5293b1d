import gc
from functools import partial, partialmethod

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.checkpoint import checkpoint

from oprd.core.capture import blocks, capture_states, decoder, hidden_size, num_layers
from tests import tiny
from tests.models import zoo

IDS, ATTENTION = tiny.batch((9, 6, 3))


def reference_states(model, **inputs):
    output = model.base_model(**inputs, output_hidden_states=True, use_cache=False)
    return output.hidden_states


def inputs(model):
    return {"input_ids": IDS, "attention_mask": ATTENTION}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", [*tiny.ARCHITECTURES, *tiny.HYBRIDS])
def test_states_equal_those_of_output_hidden_states(architecture, dtype):
    model = tiny.model(architecture).to(dtype)
    with torch.no_grad():
        expected = reference_states(model, **inputs(model))
        with capture_states(model, "all") as states:
            model(**inputs(model))
    assert num_layers(model) == 3
    assert hidden_size(model) == 32
    assert sorted(states) == [1, 2, 3]
    for layer in states:
        assert torch.equal(states[layer], expected[layer])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_gradients_through_captured_states_survive_checkpointing(architecture, reentrant):
    model = tiny.model(architecture).double().train()

    def gradients():
        model.zero_grad()
        with capture_states(model, "all") as states:
            model.base_model(**inputs(model), use_cache=False)
        assert all(state.requires_grad for state in states.values())
        sum(states[layer].square().sum() for layer in (1, 2, 3)).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    actual = gradients()
    assert expected.keys() == actual.keys()
    for name, gradient in actual.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-9)


def checkpoint_calls(model, reentrant):
    """Checkpoint the blocks as Transformers did up to 5.22: with their hooks inside."""

    def call(self, kind, *args, **kwargs):
        return checkpoint(partial(kind.__call__, self, **kwargs), *args, use_reentrant=reentrant)

    for block in blocks(model):
        kind = type(block)
        block.__class__ = type("Checkpointed", (kind,), {"__call__": partialmethod(call, kind)})


def checkpoint_blocks(model, reentrant):
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("enable", [checkpoint_blocks, checkpoint_calls])
def test_what_is_computed_of_rows_survives_checkpointing_wherever_hooks_run(enable, reentrant):
    model = tiny.model().double().train()
    model.enable_input_require_grads()

    def gradients():
        model.zero_grad()
        rows = ATTENTION.bool() & (torch.arange(9) % 2 == 0)
        options = {"transform": lambda layer, rows: layer * rows.square().sum().sqrt()}
        with capture_states(model, "all", rows, **options) as states:
            model.base_model(**inputs(model), use_cache=False)
        sum(states.values()).backward()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    enable(model, reentrant)
    actual = gradients()
    assert expected.keys() == actual.keys()
    for name, gradient in actual.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-9)


def test_hooks_inside_a_checkpoint_make_no_graph_where_none_is_wanted():
    model = tiny.model().train()
    checkpoint_calls(model, reentrant=False)
    with torch.no_grad(), capture_states(model, "all") as states:
        model.base_model(**inputs(model), use_cache=False)
    assert not any(state.requires_grad for state in states.values())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_states_are_found_under_peft(architecture):
    model = tiny.model(architecture)
    expected = reference_states(model, **inputs(model))
    wrapped = get_peft_model(
        model, LoraConfig(target_modules="all-linear", fan_in_fan_out=architecture == "gpt2")
    )
    with capture_states(wrapped, (2, 3)) as states:
        wrapped(**inputs(model))
    for layer in (2, 3):
        torch.testing.assert_close(states[layer], expected[layer])


def test_a_slice_keeps_a_stretch_of_tokens():
    model = tiny.model()
    with capture_states(model, (1, 3)) as whole:
        model(**inputs(model))
    with capture_states(model, (1, 3), slice(4, 8)) as states:
        model(**inputs(model))
    for layer in (1, 3):
        assert torch.equal(states[layer], whole[layer][:, 4:8])


def test_a_mask_keeps_its_rows_in_row_major_order():
    model = tiny.model()
    mask = ATTENTION.bool() & (torch.arange(9) % 2 == 0)
    with capture_states(model, "all") as whole:
        model(**inputs(model))
    with capture_states(model, "all", mask) as states:
        model(**inputs(model))
    for layer, rows in states.items():
        assert torch.equal(rows, whole[layer][mask])


@pytest.mark.parametrize("rows", [slice(8, 9), ATTENTION.bool() & (torch.arange(9) == 8)])
def test_without_a_graph_only_the_chosen_rows_stay_in_memory(rows):
    model = tiny.model()
    with torch.no_grad(), capture_states(model, "all", rows) as states:
        model(**inputs(model))
    for state in states.values():
        assert state.untyped_storage().nbytes() == state.numel() * state.element_size()


def test_a_transform_is_kept_in_the_place_of_the_rows():
    model = tiny.model()
    with capture_states(model, (1, 3)) as whole:
        model(**inputs(model))
    reached = []

    def transform(layer, rows):
        reached.append(layer)
        return rows.sum()

    with capture_states(model, (1, 3), transform=transform) as sums:
        model(**inputs(model))
    assert reached == [1, 3]
    assert all(torch.equal(sums[layer], whole[layer].sum()) for layer in (1, 3))


def hooks_of(model):
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


def test_hooks_are_gone_after_the_block_whatever_happens_in_it():
    model = tiny.model()
    before = hooks_of(model)
    with capture_states(model, "all"):
        assert hooks_of(model) == before + 3
    assert hooks_of(model) == before
    with pytest.raises(RuntimeError, match="on purpose"), capture_states(model, "all"):
        raise RuntimeError("on purpose")
    assert hooks_of(model) == before
    with pytest.raises(ValueError), capture_states(model, (1, 4)):
        pass
    assert hooks_of(model) == before


def test_captures_of_two_models_do_not_mix():
    student, teacher = tiny.model(seed=1), tiny.model(seed=2)
    with (
        capture_states(student, "last") as of_student,
        capture_states(teacher, "last") as of_teacher,
    ):
        student(**inputs(student))
        teacher(**inputs(teacher))
    assert not torch.equal(of_student[3], of_teacher[3])


def test_states_are_released_with_the_mapping():
    model = tiny.model()
    with torch.no_grad(), capture_states(model, "all") as states:
        model(**inputs(model))
    probe = torch.utils.weak.WeakTensorKeyDictionary({states[1]: None})
    del states
    gc.collect()
    assert len(probe) == 0


def test_a_layer_that_was_not_captured_says_what_to_do():
    model = tiny.model()
    with capture_states(model, (2,)) as states:
        pass
    with pytest.raises(KeyError, match="captured are none"):
        states[2]


@pytest.mark.parametrize(
    ("layers", "rows", "message"),
    [
        ((4,), None, r"layer 4 is outside 1\.\.3"),
        ("middle", None, "layers must be"),
        ("all", torch.ones(3, 9), "bool mask"),
        ("all", torch.ones(9, dtype=torch.bool), "bool mask"),
    ],
)
def test_bad_arguments_are_refused_before_the_model_runs(layers, rows, message):
    with pytest.raises(ValueError, match=message), capture_states(tiny.model(), layers, rows):
        pass


def test_a_mask_of_another_batch_is_refused_with_both_shapes():
    model = tiny.model()
    mask = torch.ones(2, 9, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"\(2, 9\).*\(3, 9\)"), capture_states(model, "all", mask):
        model(**inputs(model))


def test_a_module_that_is_no_transformers_model_is_refused():
    with (
        pytest.raises(ValueError, match="has no config"),
        capture_states(torch.nn.Linear(2, 2), "all"),
    ):
        pass


@pytest.mark.parametrize(
    ("name", "stack"),
    [
        ("llama4_text", "Llama4TextModel"),
        ("mllama", "MllamaTextModel"),
        ("modernbert-decoder", "ModernBertDecoderModel"),
    ],
)
def test_a_stack_is_found_where_a_model_names_another_place(name, stack):
    model = zoo.model(name)
    assert type(decoder(model)).__name__ == stack
    assert decoder(decoder(model)) is decoder(model)
    assert num_layers(model) == len(blocks(model)) == zoo.LAYERS


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("bert", "BertModel: expected one list of 4 modules, found 0"),
        ("blt", "BltModel: its configuration has no num_hidden_layers"),
    ],
)
def test_a_model_without_one_list_of_blocks_is_refused(name, problem):
    with pytest.raises(ValueError, match=rf"cannot find the blocks of {problem}\. Choose a model"):
        num_layers(zoo.model(name))
