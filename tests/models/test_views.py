"""Readings of the same responses after other prompts: row by row, and averaged."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oprd.models.reading import View, read
from oprd.models.views import PROMPT_IDS, Views, add_prompts, views_in
from tests import tiny

TOKENS = st.integers(0, 255)
PROMPT = st.lists(TOKENS, min_size=1, max_size=6)


@st.composite
def sequences(draw, most=4):
    """Of some sequences: a prompt, others for the teacher, a response and which of it counts."""
    found = []
    for _ in range(draw(st.integers(1, most))):
        response = draw(st.lists(TOKENS, max_size=6))
        written = [draw(st.booleans()) for _ in response]
        chosen = [w and draw(st.booleans()) for w in written]
        own = draw(st.lists(PROMPT, min_size=1, max_size=3))
        found.append((draw(PROMPT), own, response, written, chosen))
    return found


def generated(drawn, padding=0):
    """A generation batch as TRL pads it, with what was written of it and what is supervised."""
    prompts, own, responses, written, chosen = zip(*drawn, strict=True)
    width = max(map(len, prompts)) + padding
    length = max(1, *map(len, responses)) + padding

    def right(values, fill):
        return torch.tensor([[*v, *[fill] * (length - len(v))] for v in values])

    output = {
        "prompt_ids": torch.tensor([[tiny.PAD] * (width - len(p)) + p for p in prompts]),
        "prompt_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]),
        "completion_ids": right(responses, tiny.PAD),
        "completion_mask": right([[1] * len(r) for r in responses], 0),
    }
    add_prompts(output, own, tiny.PAD, max(map(len, own)))
    return output, right(written, False).bool(), right(chosen, False).bool()


def student_view(output, response, positions):
    ids, mask = (
        torch.cat([output[f"prompt_{part}"], output[f"completion_{part}"]], dim=1)
        for part in ("ids", "mask")
    )
    return View.of_rollouts(ids, mask, response, positions)


def predicted(view: View, rows: torch.Tensor) -> list[list[int]]:
    """The real tokens that follow the chosen states, sequence by sequence."""
    follow = view.input_ids.roll(-1, dims=1)
    assert view.attention_mask.roll(-1, dims=1)[rows].all()
    return [follow[b][rows[b]].tolist() for b in range(len(rows))]


@settings(max_examples=100, deadline=None)
@given(sequences(), st.integers(0, 3))
def test_the_rows_of_all_views_predict_the_same_response_tokens(drawn, padding):
    output, response, positions = generated(drawn, padding)
    own = student_view(output, response, positions)
    views = Views.of_rollouts(output, response, positions)
    assert views is not None
    for view in views.views:
        assert predicted(view, view.rows) == predicted(own, own.rows)
        assert predicted(view, view.response) == predicted(own, own.response)
        # Every row that counts stands on a real token, its prompt's last one at the earliest.
        assert view.attention_mask[view.response].all()


@settings(max_examples=20, deadline=None)
@given(sequences(most=3), st.integers(0, 3))
def test_states_are_the_mean_over_a_sequences_own_prompts_whatever_the_padding(drawn, padding):
    model = tiny.model(seed=2).double()
    output, response, positions = generated(drawn, padding)
    views = Views.of_rollouts(output, response, positions)
    with torch.no_grad():
        found = views.read(lambda view: read(model, view, [1, 3], last=True))
    expected = {layer: [] for layer in (1, 3)}
    last = []
    for _, own, ids, written, chosen in drawn:
        single = []
        for prompt in own:
            with torch.no_grad():
                states = model(torch.tensor([prompt + ids]), output_hidden_states=True)
            states = [layer[0, len(prompt) - 1 : -1] for layer in states.hidden_states]
            single.append(torch.stack(states))
        mean = torch.stack(single).mean(dim=0)
        for layer in expected:
            expected[layer].append(mean[layer][torch.tensor(chosen, dtype=torch.bool)])
        last.append(mean[3][torch.tensor(written, dtype=torch.bool)])
    for layer, rows in expected.items():
        torch.testing.assert_close(found.states[layer], torch.cat(rows), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.last, torch.cat(last), atol=1e-6, rtol=1e-5)


def test_a_single_view_is_read_as_it_is():
    output, response, positions = generated([([1], [[2, 3]], [4, 5], [True] * 2, [True] * 2)])
    views = Views.of_rollouts(output, response, positions)
    reading = object()
    assert views.read(lambda view: reading) is reading


def test_without_prompts_of_its_own_there_are_no_views():
    output, _, _ = generated([([1], [[2]], [4], [True], [True])])
    del output[PROMPT_IDS]
    assert views_in(output) == []


def test_views_and_weights_that_do_not_fit_are_refused():
    output, response, positions = generated([([1], [[2], [3]], [4], [True], [True])])
    views = Views.of_rollouts(output, response, positions)
    with pytest.raises(ValueError, match="2 views need as many weights, got 1"):
        Views(views.views)


def test_states_in_half_precision_stay_so():
    model = tiny.model(seed=2).to(torch.bfloat16)
    output, response, positions = generated([([1], [[2], [3, 4]], [5, 6], [True] * 2, [True] * 2)])
    views = Views.of_rollouts(output, response, positions)
    with torch.no_grad():
        found = views.read(lambda view: read(model, view, [2], last=True))
    assert found.states[2].dtype == found.last.dtype == torch.bfloat16
