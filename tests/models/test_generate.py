from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    Gemma3Config,
    GenerationConfig,
    LlavaConfig,
    SiglipVisionConfig,
)

from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.tasks import arithmetic
from oprd.evaluation.tasks.base import Problem
from oprd.models.generate import (
    Request,
    SeededSampler,
    TransformersEngine,
    end_token_ids,
    left_pad,
)
from oprd.models.prompt import render_prompt
from oprd.models.sampling import Sampling
from tests import tiny

SAMPLING = Sampling(samples=2, temperature=1.0, top_p=0.95, max_new_tokens=12, seed=0)


def request(problem: str, sample: int = 0, text: str = "What is 2 + 3?") -> Request:
    seed = SAMPLING.pair_seed("t", problem, sample)
    return Request(problem, sample, tuple(text.encode()), seed)


REQUESTS = [request(f"p{i}", text="x" * (3 + 5 * i)) for i in range(5)]


def drawn(requests: list[Request], batch_size: int, sampling: Sampling = SAMPLING) -> dict:
    engine = TransformersEngine(tiny.model(), tiny.tokenizer(), batch_size)
    batches = list(engine.generate(requests, sampling))
    return {r.request.problem: (r.ids, r.finish_reason) for batch in batches for r in batch}


def test_a_response_does_not_depend_on_its_neighbours_or_their_order() -> None:
    alone = drawn(REQUESTS, batch_size=1)
    assert drawn(REQUESTS, batch_size=2) == alone
    assert drawn(REQUESTS[::-1], batch_size=5) == alone
    assert drawn(REQUESTS[2:3], batch_size=5) == {"p2": alone["p2"]}
    assert len({str(ids) for ids, _ in alone.values()}) == 5


def test_drawing_leaves_random_state_mode_and_settings_alone() -> None:
    model = tiny.model().train()
    model.generation_config = GenerationConfig(repetition_penalty=9.0, eos_token_id=tiny.EOS)
    before = torch.get_rng_state()
    engine = TransformersEngine(model, tiny.tokenizer(), 5)
    found = {r.request.problem: r.ids for b in engine.generate(REQUESTS, SAMPLING) for r in b}
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training and model.generation_config.repetition_penalty == 9.0
    assert found == {problem: ids for problem, (ids, _) in drawn(REQUESTS, 5).items()}


def test_a_model_saved_with_its_cache_off_reads_each_token_once() -> None:
    model, lengths = tiny.model(), []
    model.config.use_cache = model.generation_config.use_cache = False
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    engine = TransformersEngine(model, tiny.tokenizer(), 5)
    found = {r.request.problem: r.ids for b in engine.generate(REQUESTS, SAMPLING) for r in b}
    assert found == {problem: ids for problem, (ids, _) in drawn(REQUESTS, 5).items()}
    assert len(lengths) > 1 and set(lengths[1:]) == {1}
    assert model.generation_config.use_cache is False


def test_the_sampler_draws_from_the_model_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    rows = 4_000
    batch = [Request("p", i, (0,), SAMPLING.pair_seed("t", "p", i)) for i in range(rows)]
    sampler = SeededSampler(batch, Sampling(temperature=0.5, top_p=1.0, max_new_tokens=1))
    kept = sampler(torch.zeros(rows, 1, dtype=torch.long), logits.expand(rows, 4))
    assert torch.equal(kept.isfinite().sum(dim=1), torch.ones(rows))
    shares = kept.isfinite().double().mean(dim=0)
    assert shares.numpy() == pytest.approx((logits / 0.5).softmax(0).numpy(), abs=0.02)


def test_the_sampler_never_leaves_the_nucleus() -> None:
    batch = [Request("p", i, (0,), i) for i in range(500)]
    sampler = SeededSampler(batch, Sampling(temperature=1.0, top_p=0.6, max_new_tokens=1))
    logits = torch.tensor([0.5, 0.1, 0.3, 0.1]).log().expand(500, 4)
    kept = sampler(torch.zeros(500, 1, dtype=torch.long), logits).isfinite().any(dim=0)
    assert kept.tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        ({"top_k": 2}, [True, False, True, False]),
        ({"min_p": 0.5}, [True, False, True, False]),
        ({"min_p": 0.1}, [True, True, True, True]),
        # Token 0, which every prompt holds, falls to 0.5 ** 10.
        ({"repetition_penalty": 10.0}, [False, True, True, True]),
    ],
)
def test_the_sampler_leaves_out_what_the_settings_say(setting: dict, kept: list[bool]) -> None:
    batch = [Request("p", i, (0,), i) for i in range(500)]
    options = {"temperature": 1.0, "top_p": 1.0, "max_new_tokens": 1}
    sampler = SeededSampler(batch, Sampling(**options, **setting))
    logits = torch.tensor([0.5, 0.1, 0.3, 0.1]).log().expand(500, 4)
    drawn = sampler(torch.zeros(500, 1, dtype=torch.long), logits).isfinite().any(dim=0)
    assert drawn.tolist() == kept


def test_greedy_with_a_repetition_penalty_is_transformers_own() -> None:
    greedy = Sampling(1, 0.0, max_new_tokens=6, repetition_penalty=1.5)
    ids = torch.tensor([REQUESTS[0].prompt_ids])
    options = {"max_new_tokens": 6, "do_sample": False, "repetition_penalty": 1.5}
    expected = tiny.model().generate(ids, **options)[0, ids.shape[1] :]
    assert drawn(REQUESTS[:1], 1, greedy)["p0"][0] == expected.tolist()


def test_padding_is_no_repetition() -> None:
    batch = [Request("p", 0, (1, 2, 3), 0), Request("q", 0, (1,), 0)]
    greedy = Sampling(1, 0.0, max_new_tokens=2, repetition_penalty=3.0)
    sampler = SeededSampler(batch, greedy)
    logits = torch.tensor([5.0, 4.0, 3.0, 2.0]).expand(2, 4)
    ids = torch.tensor([[1, 2, 3], [0, 0, 1]])
    assert sampler(ids, logits).argmax(dim=1).tolist() == [0, 0]
    # Now token 0 is a repetition in both, and token 2 is new to the second.
    ids = torch.tensor([[1, 2, 3, 0], [0, 0, 1, 0]])
    assert sampler(ids, logits).argmax(dim=1).tolist() == [0, 2]


def test_files_name_only_settings_that_alter_something() -> None:
    assert set(SAMPLING.facts()) == {"samples", "temperature", "top_p", "max_new_tokens", "seed"}
    assert Sampling(top_k=20, min_p=0.1).facts().items() >= {"top_k": 20, "min_p": 0.1}.items()


def test_temperature_zero_is_greedy() -> None:
    greedy = Sampling(samples=1, temperature=0.0, max_new_tokens=6)
    ids = torch.tensor([REQUESTS[0].prompt_ids])
    expected = tiny.model().generate(ids, max_new_tokens=6, do_sample=False)[0, ids.shape[1] :]
    assert drawn(REQUESTS[:1], 1, greedy)["p0"][0] == expected.tolist()


def test_the_finish_reason_tells_an_end_from_the_limit() -> None:
    model = tiny.model()
    engine = TransformersEngine(model, tiny.tokenizer(), 5)
    found = [r for b in engine.generate(REQUESTS, SAMPLING) for r in b]
    assert {r.finish_reason for r in found} == {"length"}
    # Whatever comes third is now an end token.
    third = found[0].ids[2]
    model.generation_config.eos_token_id = [tiny.EOS, third]
    engine = TransformersEngine(model, tiny.tokenizer(), 5)
    again = {r.request.problem: r for b in engine.generate(REQUESTS, SAMPLING) for r in b}
    ended = again[found[0].request.problem]
    assert (ended.finish_reason, ended.ids[-1]) == ("stop", third)
    assert ended.ids == found[0].ids[: len(ended.ids)]


def test_a_batch_is_padded_on_the_left() -> None:
    found = left_pad([[1, 2, 3], [4]], pad=9)
    assert found["input_ids"].tolist() == [[1, 2, 3], [9, 9, 4]]
    assert found["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]


def test_prompts_are_rendered_by_the_template_where_there_is_one() -> None:
    tokenizer = tiny.tokenizer()
    assert render_prompt(tokenizer, "hi")[0] == "hi"
    chat = [{"role": "user", "content": "hi"}]
    assert render_prompt(tokenizer, chat) == ("hi\n", tokenizer("hi\n")["input_ids"])
    tokenizer = type(tokenizer)(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>", pad_token="<pad>"
    )
    tokenizer.chat_template = "{% for m in messages %}<user>{{ m.content }}{% endfor %}"
    assert render_prompt(tokenizer, chat)[0] == "<user>hi"
    tokenizer.chat_template += "{{ '<think>' if think else '' }}"
    assert render_prompt(tokenizer, chat, think=True)[0] == "<user>hi<think>"


def test_a_model_without_an_end_is_refused() -> None:
    model, tokenizer = tiny.model(), tiny.tokenizer()
    assert end_token_ids(model, tokenizer) == [tiny.EOS]
    model.generation_config.eos_token_id = None
    bare = type(tokenizer)(tokenizer_object=tokenizer.backend_tokenizer)
    with pytest.raises(ValueError, match="no end token"):
        end_token_ids(model, bare)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"samples": 0}, "samples"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": 0.0}, "16 identical"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"top_k": -1}, "top_k must be at least 1, or 0"),
        ({"min_p": 1.5}, "min_p must be in"),
        ({"repetition_penalty": 0.0}, "repetition_penalty must be finite and above 0"),
    ],
)
def test_bad_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**setting)
    with pytest.raises(ValueError, match="batch_size"):
        TransformersEngine(tiny.model(), tiny.tokenizer(), 0)


def test_seeds_of_pairs_differ_and_depend_on_every_part() -> None:
    seeds = {SAMPLING.pair_seed("t", f"p{i}", j) for i in range(50) for j in range(16)}
    assert len(seeds) == 800
    assert np.max(list(seeds)) < 2**31
    other = Sampling(seed=1).pair_seed("t", "p0", 0)
    assert len({SAMPLING.pair_seed(t, "p0", 0) for t in "tu"} | {other}) == 3


def pictured(wrapper: str) -> torch.nn.Module:
    """A model that reads pictures too: its text configuration is one of several inside."""
    text = tiny.config("llama" if wrapper == "llava" else "gemma3")
    if wrapper == "llava":
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2}
        vision = CLIPVisionConfig(**sizes, num_attention_heads=2, image_size=28, patch_size=14)
        config = LlavaConfig(vision_config=vision, text_config=text)
    else:
        sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
        vision = SiglipVisionConfig(**sizes, num_attention_heads=2, image_size=28, patch_size=14)
        config = Gemma3Config(vision_config=vision, text_config=text)
    return AutoModelForImageTextToText.from_config(config).eval()


@pytest.mark.parametrize("wrapper", ["llava", "gemma3"])
def test_a_context_is_that_of_the_text_model_inside(wrapper: str) -> None:
    model = pictured(wrapper)
    assert not hasattr(model.config, "max_position_embeddings")
    assert TransformersEngine(model, tiny.tokenizer()).context_length == 256
    problem = Problem("long", "x" * 250, "1")
    task = replace(arithmetic.load(count=1), problems=(problem,))
    with pytest.raises(ValueError, match=r"'long' .* 250 prompt tokens.*the context of 256"):
        evaluate_model(model, tiny.tokenizer(), task, samples=1, max_new_tokens=12)
