from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, MambaConfig
from transformers.cache_utils import Cache, DynamicLayer

from oprd.core.capture import capture_states
from oprd.training.batch import MicroBatch
from oprd.training.forward import base_forward
from oprd.training.reading import read
from oprd.training.windowed import check_windows, read_windowed
from tests import tiny

WIDTH = 31
# Of each sequence the first real column, the first supervised row and the last one's end.
PLACES = ((3, 20, 24), (0, 9, 30), (7, 7, 9), (2, 27, 28))


def ragged() -> MicroBatch:
    """Five sequences, padded on both sides; the last has no window.

    One window starts at its sequence's first token and one has a gap. What the student wrote starts
    two columns before its window.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 256, (5, WIDTH), generator=generator)
    mask = torch.zeros_like(ids)
    rows, written = (torch.zeros_like(ids, dtype=torch.bool) for _ in range(2))
    for index, (first, start, end) in enumerate(PLACES):
        mask[index, first : end + 1] = 1
        rows[index, start:end] = True
        written[index, max(first, start - 2) : end] = True
    rows[1, 12:15] = False
    mask[4, 5:] = 1
    none = torch.zeros(())
    return MicroBatch(ids, mask, ids[:, 1:], written[:, :-1], rows[:, :-1], none, none)


def rows_of(batch):
    return batch.predicting(batch.positions)


def whole(model, batch, layers=(1, 2, 3)):
    return read(model, batch, layers).states


def windowed(model, batch, layers=(1, 2, 3)):
    return read_windowed(model, batch, layers, rows_of(batch)).states


def gradients(model, states):
    model.zero_grad()
    sum(state.square().sum() for state in states.values()).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(actual, expected, tolerance=1e-5):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        scale = max(1.0, float(value.detach().abs().max())) if value.numel() else 1.0
        torch.testing.assert_close(
            actual[name], value, rtol=tolerance, atol=tolerance * scale, msg=str(name)
        )


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_states_equal_those_of_a_whole_forward_pass(architecture, attention):
    model = tiny.model(architecture, attn_implementation=attention)
    batch = ragged()
    assert_same(windowed(model, batch), whole(model, batch))


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "phi3"])
def test_states_are_the_same_with_sliding_windows(architecture):
    options = {"sliding_window": 5}
    if architecture != "phi3":
        options |= {"use_sliding_window": True, "max_window_layers": 1}
    model = tiny.model(architecture, **options)
    batch = ragged()
    assert_same(windowed(model, batch), whole(model, batch))


class ConstantOutside(DynamicLayer):
    """Hands keys and values back as they came, without gradient outside the window."""

    def __init__(self, window):
        super().__init__()
        self.window = window[:, None, :, None]

    def update(self, keys, values, *args, **kwargs):
        return tuple(torch.where(self.window, x, x.detach()) for x in (keys, values))


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_gradients_are_those_with_the_keys_and_values_of_the_prefix_constant(architecture):
    model = tiny.model(architecture).double()
    batch = ragged()
    rows = rows_of(batch)
    actual = gradients(model, windowed(model, batch))
    between = rows.cumsum(1).bool() & rows.flip(1).cumsum(1).flip(1).bool()
    with capture_states(model, "all", rows) as states:
        cache = Cache(layers=[ConstantOutside(between) for _ in range(3)])
        base_forward(model, batch.input_ids, batch.attention_mask, cache=cache)
    assert_same(actual, gradients(model, states), 1e-5)  # Gemma's norms are in float32
    exact = gradients(model, whole(model, batch))
    assert any(not torch.allclose(actual[name], exact[name]) for name in exact)


def test_a_token_that_only_the_prefix_has_gets_no_gradient():
    model = tiny.model(tie_word_embeddings=False)
    batch = ragged()
    gradient = gradients(model, windowed(model, batch))["model.embed_tokens.weight"]
    rows = rows_of(batch)
    between = rows.cumsum(1).bool() & rows.flip(1).cumsum(1).flip(1).bool()
    inside = set(batch.input_ids[between].tolist())
    outside = sorted(set(batch.input_ids[batch.attention_mask.bool()].tolist()) - inside)
    assert len(outside) > 20
    assert not gradient[outside].any()
    assert gradient[sorted(inside)].any(dim=1).all()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_checkpointing_changes_no_state_and_no_gradient(architecture, reentrant):
    model = tiny.model(architecture).double().train()
    batch = ragged()
    states = windowed(model, batch)
    expected = gradients(model, states)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    checkpointed = windowed(model, batch)
    assert_same(checkpointed, states, 1e-9)
    assert_same(gradients(model, checkpointed), expected, 1e-9)
    assert model.is_gradient_checkpointing
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("ends", ["with the response", "before it"])
def test_last_states_of_the_whole_response_leave_the_gradient_as_it_is(ends):
    model, batch = tiny.model().double(), ragged()
    if ends == "before it":
        early = batch.positions & (batch.positions.cumsum(1) <= 2)
        batch = replace(batch, positions=early)
    expected = gradients(model, windowed(model, batch))
    reading = read_windowed(model, batch, (1, 2, 3), rows_of(batch), last=True)
    exact = read(model, batch, (1, 2, 3), last=True)
    torch.testing.assert_close(reading.last, exact.last, rtol=1e-9, atol=1e-9)
    assert_same(reading.states, exact.states, 1e-9)
    assert_same(gradients(model, reading.states), expected, 1e-9)


def test_last_states_have_a_gradient_in_the_window():
    model, batch = tiny.model().double(), ragged()
    response = batch.predicting(batch.response)
    last = read_windowed(model, batch, (), response, last=True).last
    same = replace(batch, positions=batch.response)
    assert_same(gradients(model, {3: last}), gradients(model, windowed(model, same, (3,))), 1e-9)


def test_a_batch_with_pictures_is_refused():
    batch = replace(ragged(), extra={"pixel_values": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"pixel_values.*prefix_gradients=True"):
        windowed(tiny.model(), batch)


def test_dropout_falls_on_prefix_and_window():
    model = tiny.model("gpt2", resid_pdrop=0.5).train()

    def states(seed):
        torch.manual_seed(seed)
        return windowed(model, ragged())

    assert_same(states(0), states(0))
    assert not torch.allclose(states(0)[1], states(1)[1])


def test_autocast_leaves_no_weight_without_gradient():
    model = tiny.model()
    with torch.autocast("cpu", torch.bfloat16):
        states = windowed(model, ragged())
    names = [name for name, _ in model.named_parameters() if "lm_head" not in name]
    found = gradients(model, states)
    assert sorted(found) == sorted(names)
    assert all(gradient.any() for gradient in found.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_states_are_close(dtype):
    model = tiny.model().to(dtype)
    batch = ragged()
    assert_same(windowed(model, batch), whole(model, batch), 0.05)


def test_an_adapter_learns_and_its_base_does_not():
    model = get_peft_model(tiny.model(), LoraConfig(target_modules="all-linear", r=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    batch = ragged()
    states = windowed(model, batch)
    assert_same(states, whole(model, batch))
    found = gradients(model, states)
    assert found and all("lora_" in name and grad.any() for name, grad in found.items())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_no_window_at_all_gives_no_rows_and_a_graph_of_zeros(architecture, attention):
    model = tiny.model(architecture, attn_implementation=attention).train()
    batch = ragged()
    states = windowed(model, replace(batch, positions=torch.zeros_like(batch.positions)))
    assert all(state.shape == (0, 32) for state in states.values())
    found = gradients(model, states)
    assert found and not any(gradient.any() for gradient in found.values())


def test_only_the_layers_asked_for_are_captured_and_transformed():
    model, batch = tiny.model(), ragged()
    scaled = {"transform": lambda layer, rows: layer * rows.sum()}
    sums = read_windowed(model, batch, (1, 3), rows_of(batch), **scaled).states
    expected = whole(model, batch)
    assert sorted(sums) == [1, 3]
    for layer, total in sums.items():
        torch.testing.assert_close(total, layer * expected[layer].sum(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_architectures_that_can_be_windowed_pass_the_check(architecture):
    model = tiny.model(architecture).train()
    check_windows(model)
    assert model.training
    check_windows(tiny.model(architecture).to(torch.bfloat16))


def test_a_rope_that_depends_on_the_whole_length_is_refused():
    ropes = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    with pytest.raises(ValueError, match=r"LlamaModel cannot .*'dynamic'.*prefix_gradients=True"):
        check_windows(tiny.model(rope_parameters=ropes))


@pytest.mark.parametrize(
    ("config", "blocks"),
    [
        (MambaConfig(vocab_size=tiny.VOCAB, hidden_size=32, num_hidden_layers=3), "0, 1, 2"),
        (tiny.config("lfm2"), "0, 2"),
        (tiny.config("falcon_h1"), "0, 1, 2"),
        (tiny.config("qwen3_next"), "0, 2"),
    ],
)
def test_a_model_with_recurrent_blocks_is_refused_by_the_blocks(config, blocks):
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError) as raised:
        check_windows(model)
    assert str(raised.value) == (
        f"{type(model.base_model).__name__} cannot read its prefix apart from its window: blocks "
        f"[{blocks}] keep other than keys and values, such as a recurrent state. Set "
        "prefix_gradients=True."
    )


def test_a_model_that_ignores_its_cache_is_refused_before_and_while_it_trains():
    model = tiny.model()
    for block in model.model.layers:
        attention = block.self_attn
        attention.forward = partial(ignore_cache, attention.forward)
    with pytest.raises(ValueError, match="0 of 3 blocks wrote to the cache"):
        check_windows(model)
    with pytest.raises(ValueError, match="0 of 3 blocks wrote to the cache"):
        windowed(model, ragged())


def test_a_block_that_does_not_read_the_cache_is_named():
    model = tiny.model()
    attention = model.model.layers[1].self_attn
    original = attention.forward
    attention.forward = lambda *args, **kwargs: (
        original if not torch.is_grad_enabled() else partial(ignore_cache, original)
    )(*args, **{**kwargs, "attention_mask": None} if torch.is_grad_enabled() else kwargs)
    with pytest.raises(ValueError, match=r"blocks \[1\] did not read the cache"):
        windowed(model, ragged())


def test_a_model_whose_states_depend_on_the_split_is_refused():
    model = tiny.model()
    model.model.layers[1].register_forward_pre_hook(lambda _, args: (args[0] * args[0].shape[1],))
    with pytest.raises(ValueError, match=r"states of layer 1 differ .* by \d+\.\d%"):
        check_windows(model)


def ignore_cache(forward, *args, past_key_values=None, cache=None, **kwargs):
    """Take it under the name that it has up to Transformers 5.23, or since."""
    return forward(*args, **kwargs)


def test_weights_that_are_elsewhere_are_not_run():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny.config("llama"))
    check_windows(model)
