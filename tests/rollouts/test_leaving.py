"""Writing on without the responses that have ended."""

import pytest
import torch
from transformers import GenerationConfig

from oprd.rollouts.leaving import leaving_ended
from oprd.rollouts.recorded import Recorder
from tests import tiny
from tests.models import zoo
from tests.rollouts.test_recorded import MASK, PROMPTS
from tests.training import runs

# So likely that some responses end in each step.
ENDS = tuple(range(40))


def config(**options):
    given = {"max_new_tokens": 12, "do_sample": True, "top_k": 0, "top_p": 1.0, "pad_token_id": 255}
    return GenerationConfig(**{**given, "eos_token_id": list(ENDS), **options})


def written(model, prompts, mask, *, leaves, recorder=None, seed=0, **options):
    """Responses up to their end tokens, and how many rows each pass had."""
    model.eval()
    rows, recorder = [], recorder or Recorder(1.0)
    handle = model.register_forward_hook(
        lambda *given: rows.append(len(given[2]["input_ids"])), with_kwargs=True
    )
    torch.manual_seed(seed)
    given = {"input_ids": prompts, "attention_mask": mask, "generation_config": config(**options)}
    with torch.no_grad(), recorder.listening(model):
        if leaves:
            with leaving_ended(model, ENDS, recorder):
                ids = model.generate(**given)
        else:
            ids = model.generate(**given)
    handle.remove()
    return [cut(row) for row in ids[:, prompts.shape[1] :].tolist()], rows


def cut(row):
    end = next((place for place, token in enumerate(row) if token in ENDS), len(row))
    return row[: end + 1]


def batch(rows):
    times = rows // len(PROMPTS)
    return PROMPTS.repeat(times, 1), MASK.repeat(times, 1)


def test_the_likeliest_tokens_are_those_of_one_call():
    torch.manual_seed(3)
    prompts = torch.randint(40, 256, (16, 5))
    mask = torch.ones_like(prompts)
    mask[::3, :2] = 0
    for seed in range(3):
        model = tiny.model(seed=seed)
        whole, _ = written(model, prompts, mask, leaves=False, do_sample=False)
        left, rows = written(model, prompts, mask, leaves=True, do_sample=False)
        assert left == whole
        assert len({len(ids) for ids in whole}) > 2 and min(rows) < max(rows)


def test_rows_that_have_ended_are_computed_no_more():
    prompts, mask = batch(32)
    responses, rows = written(tiny.model(seed=1), prompts, mask, leaves=True)
    assert rows == sorted(rows, reverse=True) and rows[0] == 32
    # At most a quarter of what is computed had ended.
    for step, count in enumerate(rows):
        going_on = sum(len(ids) > step for ids in responses)
        assert going_on <= count and going_on > 0.7 * count - 1
    assert len(rows) == max(map(len, responses))


def test_responses_are_as_likely_as_those_of_one_call():
    model, (prompts, mask) = tiny.model(seed=1), batch(64)
    shares = []
    for leaves in (False, True):
        counts = torch.zeros(13)
        for seed in range(40):
            responses, _ = written(model, prompts, mask, leaves=leaves, seed=seed)
            counts += torch.bincount(torch.tensor([len(ids) for ids in responses]), minlength=13)
        shares.append(counts / counts.sum())
    torch.testing.assert_close(*shares, atol=0.04, rtol=0)


def test_what_is_recorded_is_what_a_reading_gives():
    model, recorder = tiny.model(seed=1), Recorder(0.7)
    prompts, mask = batch(16)
    responses, rows = written(model, prompts, mask, leaves=True, recorder=recorder, temperature=0.7)
    assert min(rows) < 16
    for row, (response, found) in enumerate(zip(responses, recorder.of(responses), strict=True)):
        prompt = prompts[row][mask[row].bool()].tolist()
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        target = torch.tensor(response)[:, None]
        expected = (logits / 0.7).log_softmax(dim=-1).gather(1, target)[:, 0]
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gemma2", "mamba2"])
def test_where_a_cache_cannot_be_divided_the_others_are_read_anew_once(name):
    model = zoo.model(name)
    prompts = torch.randint(40, 256, (8, 5), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(prompts)
    whole, _ = written(model, prompts, mask, leaves=False, do_sample=False)
    left, rows = written(model, prompts, mask, leaves=True, do_sample=False)
    assert left == whole and len({*rows}) == 2


def test_a_models_own_generate_is_there_again_even_after_an_error():
    model = tiny.model(seed=1)
    with pytest.raises(ZeroDivisionError), leaving_ended(model, ENDS, Recorder(1.0)):
        assert "generate" in vars(model)
        raise ZeroDivisionError
    assert "generate" not in vars(model)


def test_a_run_writes_so_and_is_resumed_bit_identical(tmp_path):
    def run(folder, resume=None):
        made = runs.trainer(
            folder,
            rollout=None,
            max_steps=4,
            leave_ended=True,
            rollouts_ahead=2,
            generation_kwargs={"eos_token_id": list(ENDS)},
            learning_rate=1e-2,
            optim="adamw_torch",
            save_strategy="steps",
            save_steps=2,
        )
        made.train(resume_from_checkpoint=resume)
        return runs.weights(made.model)

    whole = run(tmp_path / "whole")
    assert "drift_kl" in (tmp_path / "whole" / "metrics.jsonl").read_text()
    resumed = run(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"generation_kwargs": {"min_new_tokens": 2}}, "min_new_tokens=2"),
        ({"generation_kwargs": {"num_beams": 2}}, "num_beams"),
        ({"cache_implementation": "static"}, "cache_implementation='static'"),
        ({"use_vllm": True}, "use_vllm=True"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path, options, named):
    with pytest.raises(ValueError, match=f"which {named} does not allow: leave one of them out"):
        runs.settings(tmp_path, leave_ended=True, **options)
