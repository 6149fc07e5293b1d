"""`oprd eval` with vLLM beside Transformers, on a tiny model on a CPU."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.engines.models import LONG, WIDE, ends_in, save
from tests.engines.process import in_process, needs_vllm

pytestmark = needs_vllm

SHAPINGS = [
    {"temperature": 1.0, "top_p": 1.0},
    {"temperature": 0.5, "top_p": 0.8},
    {"temperature": 0.7, "top_p": 1.0, "top_k": 50},
    {"temperature": 1.0, "top_p": 1.0, "min_p": 0.2},
    {"temperature": 1.0, "top_p": 1.0, "repetition_penalty": 1.5},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with three end tokens: one response stops at once, one in the middle."""
    folder = tmp_path_factory.mktemp("model")
    ends = ends_in(tiny.model("llama", **WIDE, initializer_range=0.2))
    return save(folder, initializer_range=0.2, ends=[tiny.EOS, *ends])


@pytest.fixture(scope="module")
def found(model: Path) -> dict[str, Any]:
    return in_process("engines.responses", model, json.dumps(SHAPINGS))


def test_the_command_gives_the_same_texts_with_both_engines(found: dict[str, Any]):
    assert found["vllm"]["command"] == found["transformers"]["command"]
    assert len(found["vllm"]["command"]) == 12


def test_greedy_responses_are_equal_and_stop_at_the_same_of_several_end_tokens(
    found: dict[str, Any], model: Path
):
    own = found["vllm"]["greedy"]
    assert own == found["transformers"]["greedy"]
    ends = json.loads((model / "generation_config.json").read_text())["eos_token_id"]
    for _, ids, _, reason in own:
        assert (ids[-1] in ends) == (reason == "stop") and not set(ids[:-1]) & set(ends)
    lengths = {(len(ids), reason) for _, ids, _, reason in own}
    assert (1, "stop") in lengths and (12, "length") in lengths
    assert any(1 < length < 12 for length, reason in lengths if reason == "stop")


def probabilities(model: Path, shaping: dict[str, Any]) -> torch.Tensor:
    """[V], of the first token after `LONG`, from their definitions."""
    made = AutoModelForCausalLM.from_pretrained(model).eval()
    with torch.no_grad():
        logits = made(torch.tensor([LONG])).logits[0, -1].double()
    penalty = shaping.get("repetition_penalty", 1.0)
    for token in set(LONG):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    p = (logits / shaping["temperature"]).softmax(0)
    order = p.argsort(descending=True)
    keep = torch.zeros(len(p), dtype=torch.bool)
    keep[order[: shaping.get("top_k", len(p))]] = True
    p = p * keep / (p * keep).sum()
    before = p[order].cumsum(0) - p[order]
    keep = torch.zeros(len(p), dtype=torch.bool)
    keep[order[before < shaping["top_p"]]] = True
    keep &= p >= shaping.get("min_p", 0.0) * p.max()
    return p * keep / (p * keep).sum()


def agree(drawn: list[int], p: torch.Tensor) -> float:
    """The p-value of draws from these probabilities, rare tokens taken together."""
    counts = Counter(drawn)
    if any(p[token] == 0 for token in counts):
        return 0.0
    often = [token for token in range(len(p)) if p[token] * len(drawn) >= 5]
    observed = [counts[token] for token in often]
    expected = [float(p[token]) * len(drawn) for token in often]
    rest = len(drawn) - sum(observed), len(drawn) - sum(expected)
    if rest[1] > 1e-6:
        observed, expected = [*observed, rest[0]], [*expected, rest[1]]
    # Of one token that is sure there is nothing to test.
    return float(chisquare(observed, expected).pvalue) if len(expected) > 1 else 1.0


@pytest.mark.parametrize("engine", ["vllm", "transformers"])
@pytest.mark.parametrize("number", range(len(SHAPINGS)))
def test_samples_are_drawn_from_the_distribution_that_is_asked_for(
    found: dict[str, Any], model: Path, engine: str, number: int
):
    drawn = found[engine]["drawn"][number]
    # Ten tests at this level fail by chance once in a thousand times.
    assert agree(drawn, probabilities(model, SHAPINGS[number])) > 1e-4
    # Another distribution would be seen.
    other = probabilities(model, SHAPINGS[(number + 1) % len(SHAPINGS)])
    assert agree(drawn, other) < 1e-6
