"""Models without some of their blocks: what stays computes what it did."""

import re

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from oprd.core.capture import blocks, num_layers
from oprd.core.layers import pair_layers
from oprd.models import blocks as room
from oprd.models.blocks import (
    drop_blocks,
    kept_blocks,
    last_states,
    least_needed,
    original_pairs,
    parse_blocks,
)
from oprd.models.reading import View
from tests import tiny


def view(length: int = 12, seed: int = 0) -> View:
    ids, mask = tiny.batch((length, length - 3), seed=seed)
    return View.of_texts(ids, mask)


@pytest.mark.parametrize("dropped", [(1,), (2,), (3,), (1, 3)])
@pytest.mark.parametrize("architecture", (*tiny.ARCHITECTURES, *tiny.HYBRIDS))
def test_a_smaller_model_is_the_whole_one_without_these_blocks(architecture, dropped):
    """Against the whole model whose list of blocks is cut, with another padding and more tokens."""
    whole = tiny.model(architecture)
    smaller = drop_blocks(whole, dropped)
    assert num_layers(smaller) == 3 - len(dropped) == smaller.config.num_hidden_layers
    kept = [block for number, block in enumerate(blocks(whole), 1) if number not in dropped]
    for old, new in zip(kept, blocks(smaller), strict=True):
        assert type(old) is type(new)
        for (name, ours), (other, theirs) in zip(
            new.state_dict().items(), old.state_dict().items(), strict=True
        ):
            assert name == other and torch.equal(ours, theirs)
    assert not {id(p) for p in smaller.parameters()} & {id(p) for p in whole.parameters()}
    read = view(40)
    with room.skipping(whole, dropped):
        expected = last_states(whole, read)
    assert torch.allclose(last_states(smaller, read), expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gpt2", "qwen3_next"])
def test_a_smaller_model_is_saved_loaded_and_writes_with_a_cache(architecture, tmp_path):
    whole = tiny.model(architecture)
    smaller = drop_blocks(whole, (1,))
    smaller.save_pretrained(tmp_path)
    loaded = type(whole).from_pretrained(tmp_path).eval()
    assert torch.equal(last_states(loaded, view()), last_states(smaller, view()))
    ids, mask = tiny.batch((6, 6))
    asked = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": tiny.PAD}
    written = [
        loaded.generate(ids, attention_mask=mask, use_cache=use, **asked) for use in (True, False)
    ]
    assert torch.equal(*written)


def test_weights_and_positions_keep_their_precision(tmp_path):
    tiny.model().save_pretrained(tmp_path)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    whole.model.norm.float()
    smaller = drop_blocks(whole, (2,))
    assert smaller.model.rotary_emb.inv_freq.dtype == torch.float32
    kinds = {n: p.dtype for n, p in smaller.named_parameters()}
    assert kinds["model.norm.weight"] == torch.float32
    assert kinds["model.layers.1.mlp.up_proj.weight"] == torch.bfloat16
    with room.skipping(whole, (2,)):
        expected = last_states(whole, view(40))
    assert torch.equal(last_states(smaller, view(40)), expected)


def test_an_adapter_is_to_be_merged_first():
    adapted = get_peft_model(tiny.model(), LoraConfig(target_modules=["q_proj"]))
    with pytest.raises(ValueError, match="merge the adapter first"):
        drop_blocks(adapted, (2,))


def test_tied_embeddings_stay_tied():
    smaller = drop_blocks(tiny.model("llama", tie_word_embeddings=True), (1,))
    assert smaller.lm_head.weight is smaller.model.embed_tokens.weight


def test_the_whole_model_is_left_as_it_is():
    whole = tiny.model().train()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    smaller = drop_blocks(whole, (2,))
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.zero_()
    assert whole.training and num_layers(whole) == whole.config.num_hidden_layers == 3
    assert all(torch.equal(tensor, before[name]) for name, tensor in whole.state_dict().items())


def test_blocks_that_depend_on_their_number_are_refused():
    """A GPT-2 whose attention is divided by the block's number does not survive a new one."""
    whole = tiny.model("gpt2", scale_attn_by_inverse_layer_idx=True, initializer_range=0.5)
    with pytest.raises(ValueError, match="GPT2LMHeadModel without the blocks 1 is not what it is"):
        drop_blocks(whole, (1,))
    drop_blocks(whole, (3,))


def test_the_least_needed_block_is_the_one_whose_absence_changes_least():
    """Blocks that add next to nothing are found, and first the one that adds less."""
    model = tiny.model("llama", num_hidden_layers=5)
    with torch.no_grad():
        for number, size in ((2, 1e-3), (4, 1e-2)):
            for parameter in blocks(model)[number - 1].parameters():
                parameter.mul_(size)
    assert least_needed(model, 2, view()) == (2, 4)


def test_the_second_block_is_chosen_beside_the_first():
    """Two blocks that undo one another: each alone matters, and without one the other does."""
    model, read = tiny.model("llama", num_hidden_layers=5, initializer_range=0.3), view()
    whole = last_states(model, read)
    found = least_needed(model, 2, read)
    changes = {}
    for number in set(range(1, 6)) - {found[0]}:
        states = last_states(drop_blocks(model, (found[0], number)), read)
        cosines = torch.nn.functional.cosine_similarity(states, whole, dim=-1)
        changes[number] = float(1 - cosines.mean())
    assert min(changes, key=changes.__getitem__) == found[1]


def test_every_block_meets_itself_and_the_last_the_last():
    assert original_pairs(6, (2, 3)) == "1:1,2:4,3:5,4:6"
    assert original_pairs(6, (5, 6)) == "1:1,2:2,3:3,4:6"
    assert original_pairs(3, ()) == "1:1,2:2,3:3"
    pairs = pair_layers("all", 4, 6, original_pairs(6, (2, 3)))
    assert [pair.teacher for pair in pairs] == [1, 4, 5, 6]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("3", (3,)), ("10-15", (10, 11, 12, 13, 14, 15)), ("7, 2-3", (2, 3, 7)), ("4-4", (4,))],
)
def test_blocks_are_numbers_and_ranges(text, numbers):
    assert parse_blocks(text) == numbers


@pytest.mark.parametrize("text", ["", "a", "3-", "-3", "5-3", "1,,2", "1.5", "3-5-7"])
def test_other_texts_are_refused(text):
    with pytest.raises(ValueError, match=f"such as '10-15,20', got {re.escape(repr(text))}"):
        parse_blocks(text)


def test_a_block_that_is_named_twice_is_refused():
    with pytest.raises(ValueError, match="'2-4,3' names a block more than once"):
        parse_blocks("2-4,3")


@pytest.mark.parametrize(
    ("dropped", "said"),
    [((0,), "no block 0"), ((4,), "no block 4 to drop: the model has 3"), ((1, 2, 3), "all 3")],
)
def test_blocks_that_are_not_there_or_all_are_refused(dropped, said):
    for refused in (kept_blocks, original_pairs):
        with pytest.raises(ValueError, match=said):
            refused(3, dropped)
    with pytest.raises(ValueError, match=said):
        drop_blocks(tiny.model(), dropped)


@pytest.mark.parametrize("count", [0, 3])
def test_as_many_blocks_as_there_are_cannot_be_the_least_needed(count):
    with pytest.raises(ValueError, match=f"from 1 to 2 can be dropped, got {count}"):
        least_needed(tiny.model(), count, view())


def test_a_view_without_rows_measures_nothing():
    with pytest.raises(ValueError, match="no row of the view"):
        least_needed(tiny.model(), 1, view().unsupervised())
