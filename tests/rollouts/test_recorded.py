"""How likely tokens were to a student as it drew them."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from oprd.rollouts.recorded import Recorder
from tests import tiny
from tests.training.runs import LORA

PROMPTS = torch.tensor([[0, 0, 5, 6], [7, 8, 9, 10]])
MASK = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])


def drawn(model, recorder, **options):
    """Responses to both prompts, up to their end tokens."""
    model.eval()
    torch.manual_seed(0)
    given = {"max_new_tokens": 12, "do_sample": True, "top_k": 0, "pad_token_id": 0}
    with recorder.listening(model):
        ids = model.generate(PROMPTS, attention_mask=MASK, **{**given, **options})
    rows = ids[:, PROMPTS.shape[1] :].tolist()
    ends = [row.index(tiny.EOS) + 1 if tiny.EOS in row else len(row) for row in rows]
    return [row[:end] for row, end in zip(rows, ends, strict=True)]


def expected(model, row, response, temperature):
    prompt = PROMPTS[row][MASK[row].bool()].tolist()
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    target = torch.tensor(response)[:, None]
    return (logits / temperature).log_softmax(dim=-1).gather(1, target)[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("adapted", [False, True])
def test_it_is_what_a_reading_of_the_whole_response_gives(temperature, adapted):
    model = tiny.model(seed=1)
    if adapted:
        model = get_peft_model(model, LoraConfig(**LORA, init_lora_weights=False))
    recorder = Recorder(temperature)
    # What shapes the distribution is left out, as it is where the drift is measured.
    responses = drawn(model, recorder, temperature=temperature, top_p=0.9)
    found = recorder.of(responses)
    for row, response in enumerate(responses):
        torch.testing.assert_close(
            found[row], expected(model, row, response, temperature), atol=1e-5, rtol=1e-5
        )


def test_a_response_that_ends_before_the_others_has_its_own_tokens_alone():
    model, recorder = tiny.model(seed=1), Recorder(1.0)
    responses = drawn(model, recorder)
    shorter = [responses[0][:3], responses[1]]
    found = recorder.of(shorter)
    torch.testing.assert_close(found[0], recorder.of(responses)[0][:3])
    assert [len(own) for own in found] == [3, len(responses[1])]


def test_what_was_not_heard_is_not_known():
    recorder = Recorder(1.0)
    assert recorder.of([[1], [2]]) == [None, None]
    responses = drawn(tiny.model(seed=1), recorder)
    other = [(token + 1) % 200 for token in responses[0]]
    found = recorder.of([other, responses[1]])
    assert found[0] is None and found[1] is not None
    assert recorder.of([responses[0]]) == [None]
    assert recorder.of([[*responses[0], 5, 6], responses[1]])[0] is None


def test_nothing_is_heard_of_a_model_that_is_not_listened_to_any_more():
    model, recorder = tiny.model(seed=1), Recorder(1.0)
    responses = drawn(model, recorder)
    before = recorder.of(responses)
    with torch.no_grad():
        model(PROMPTS)
    assert all(torch.equal(*pair) for pair in zip(before, recorder.of(responses), strict=True))
