from dataclasses import replace
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, MambaConfig
from transformers.cache_utils import Cache, DynamicLayer

from oprd.core.capture import capture_states
from oprd.models.reading import View, base_forward, read
from oprd.models.windowed import check_windows, read_windowed
from tests import tiny

WIDTH = 31
# Of each sequence the first real column, the first supervised row and the last one's end.
PLACES = ((3, 20, 24), (0, 9, 30), (7, 7, 9), (2, 27, 28))


def ragged() -> View:
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
    return View(ids, mask, rows, written)


def whole(model, view, layers=(1, 2, 3)):
    return read(model, view, layers).states


def windowed(model, view, layers=(1, 2, 3)):
    return read_windowed(model, view, layers, view.rows).states


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
    view = ragged()
    assert_same(windowed(model, view), whole(model, view))


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "phi3"])
def test_states_are_the_same_with_sliding_windows(architecture):
    options = {"sliding_window": 5}
    if architecture != "phi3":
        options |= {"use_sliding_window": True, "max_window_layers": 1}
    model = tiny.model(architecture, **options)
    view = ragged()
    assert_same(windowed(model, view), whole(model, view))


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
    view = ragged()
    rows = view.rows
    actual = gradients(model, windowed(model, view))
    between = rows.cumsum(1).bool() & rows.flip(1).cumsum(1).flip(1).bool()
    with capture_states(model, "all", rows) as states:
        cache = Cache(layers=[ConstantOutside(between) for _ in range(3)])
        base_forward(model, view.input_ids, view.attention_mask, cache=cache)
    assert_same(actual, gradients(model, states), 1e-5)  # Gemma's norms are in float32
    exact = gradients(model, whole(model, view))
    assert any(not torch.allclose(actual[name], exact[name]) for name in exact)


def test_a_token_that_only_the_prefix_has_gets_no_gradient():
    model = tiny.model(tie_word_embeddings=False)
    view = ragged()
    gradient = gradients(model, windowed(model, view))["model.embed_tokens.weight"]
    rows = view.rows
    between = rows.cumsum(1).bool() & rows.flip(1).cumsum(1).flip(1).bool()
    inside = set(view.input_ids[between].tolist())
    outside = sorted(set(view.input_ids[view.attention_mask.bool()].tolist()) - inside)
    assert len(outside) > 20
    assert not gradient[outside].any()
    assert gradient[sorted(inside)].any(dim=1).all()


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_saving_changes_no_state_and_no_gradient(architecture, reentrant):
    model = tiny.model(architecture).double().train()
    view = ragged()
    states = windowed(model, view)
    expected = gradients(model, states)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    checkpointed = windowed(model, view)
    assert_same(checkpointed, states, 1e-9)
    assert_same(gradients(model, checkpointed), expected, 1e-9)
    assert model.is_gradient_checkpointing
    assert all("forward" not in vars(module) for module in model.modules())


@pytest.mark.parametrize("ends", ["with the response", "before it"])
def test_last_states_of_the_whole_response_leave_the_gradient_as_it_is(ends):
    model, view = tiny.model().double(), ragged()
    if ends == "before it":
        early = view.rows & (view.rows.cumsum(1) <= 2)
        view = replace(view, rows=early)
    expected = gradients(model, windowed(model, view))
    reading = read_windowed(model, view, (1, 2, 3), view.rows, last=True)
    exact = read(model, view, (1, 2, 3), last=True)
    torch.testing.assert_close(reading.last, exact.last, rtol=1e-9, atol=1e-9)
    assert_same(reading.states, exact.states, 1e-9)
    assert_same(gradients(model, reading.states), expected, 1e-9)


def test_last_states_have_a_gradient_in_the_window():
    model, view = tiny.model().double(), ragged()
    last = read_windowed(model, view, (), view.response, last=True).last
    same = replace(view, rows=view.response)
    assert_same(gradients(model, {3: last}), gradients(model, windowed(model, same, (3,))), 1e-9)


def test_a_view_with_pictures_is_refused():
    view = replace(ragged(), extra={"pixel_values": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"pixel_values.*prefix_gradients=True"):
        windowed(tiny.model(), view)


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
    view = ragged()
    assert_same(windowed(model, view), whole(model, view), 0.05)


def test_an_adapter_learns_and_its_base_does_not():
    model = get_peft_model(tiny.model(), LoraConfig(target_modules="all-linear", r=2))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    view = ragged()
    states = windowed(model, view)
    assert_same(states, whole(model, view))
    found = gradients(model, states)
    assert found and all("lora_" in name and grad.any() for name, grad in found.items())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_no_window_at_all_gives_no_rows_and_a_graph_of_zeros(architecture, attention):
    model = tiny.model(architecture, attn_implementation=attention).train()
    view = ragged()
    states = windowed(model, replace(view, rows=torch.zeros_like(view.rows)))
    assert all(state.shape == (0, 32) for state in states.values())
    found = gradients(model, states)
    assert found and not any(gradient.any() for gradient in found.values())


def test_only_the_layers_asked_for_are_captured_and_transformed():
    model, view = tiny.model(), ragged()
    scaled = {"transform": lambda layer, rows: layer * rows.sum()}
    sums = read_windowed(model, view, (1, 3), view.rows, **scaled).states
    expected = whole(model, view)
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
