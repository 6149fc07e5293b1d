from dataclasses import replace

import pytest
import torch

from oprd.core.capture import capture_states
from oprd.models.heads import lm_head
from oprd.models.reading import View, base_forward, read
from tests import tiny
from tests.models import zoo


def rollouts() -> View:
    """Two responses of up to four tokens after prompts of six, the last two supervised."""
    ids, mask = tiny.batch((10, 8))
    mask[1, -1] = 0
    response = mask[:, 6:].bool()
    positions = response & (response.cumsum(1) > response.sum(1, keepdim=True) - 2)
    return View.of_rollouts(ids, mask, response, positions)


def test_a_row_is_the_state_that_predicts_its_token():
    view = rollouts()
    assert view.response[0].nonzero().flatten().tolist() == [5, 6, 7, 8]
    assert view.rows[0].nonzero().flatten().tolist() == [7, 8]
    assert view.rows[1].nonzero().flatten().tolist() == [6, 7]


def test_states_and_last_states_are_those_of_a_whole_forward_pass():
    model, view = tiny.model(), rollouts()
    with torch.no_grad(), capture_states(model, "all") as whole:
        base_forward(model, view.input_ids, view.attention_mask)
    with torch.no_grad():
        reading = read(model, view, (1, 3), last=True)
    assert list(reading.states) == [1, 3]
    assert all(torch.equal(rows, whole[layer][view.rows]) for layer, rows in reading.states.items())
    assert reading.last is not None
    assert torch.equal(reading.last, whole[3][view.response])


def test_without_positions_all_response_tokens_are_supervised():
    view = rollouts()
    again = View.of_rollouts(view.input_ids, view.attention_mask, torch.ones(2, 4).bool())
    assert torch.equal(again.rows, again.response)


@pytest.mark.parametrize("name", ["attention_mask", "rows", "response"])
def test_a_mask_of_another_shape_is_refused(name):
    ids = torch.zeros(2, 5, dtype=torch.long)
    masks = {key: torch.ones(2, 5).bool() for key in ("attention_mask", "rows", "response")}
    with pytest.raises(ValueError, match=rf"{name} must have the shape of input_ids, \(2, 5\)"):
        View(ids, **{**masks, name: torch.ones(2, 4).bool()})


def test_a_model_with_its_head_inside_is_read_by_its_decoder_and_keeps_its_head():
    model, view = zoo.model("llama4", pictures=True), rollouts()
    inner = model.language_model
    with torch.no_grad():
        whole = inner(
            view.input_ids[:1], attention_mask=view.attention_mask[:1], output_hidden_states=True
        )
        states = read(model, View.of_texts(view.input_ids[:1]), range(1, 5)).states
    for layer, found in states.items():
        torch.testing.assert_close(found, whole.hidden_states[layer][0])
    assert lm_head(model).weight is inner.lm_head.weight


def test_a_model_with_its_head_inside_is_read_whole_where_there_are_pictures():
    model, picture, patches = zoo.model("llama4", pictures=True), 7, 1
    model.config.image_token_id = picture
    ids = torch.cat([torch.full((1, patches), picture), 10 + torch.arange(6)[None]], dim=1)
    inputs = {"pixel_values": torch.randn(1, 3, 28, 28)}
    try:
        own = model(input_ids=ids, output_hidden_states=True, **inputs)
    except AttributeError as error:
        pytest.skip(f"this Transformers' own forward fails: {error}")
    view = replace(View.of_texts(ids), extra=inputs)
    with torch.no_grad():
        states = read(model, view, range(1, 5)).states
    for layer, found in states.items():
        torch.testing.assert_close(found, own.hidden_states[layer][0])
