"""What it costs that a teacher reads its own tokens: a response's text in them, and who meets whom.

    python benchmarks/own_tokens.py                          # byte pairs, learned on the docs
    python benchmarks/own_tokens.py --student A --teacher B  # folders or hub ids of tokenizers
    python benchmarks/own_tokens.py --tokens 100 --layers 2  # a part of it, to see that it runs

A response is so many tokens of the documentation in the student's vocabulary. `add_responses` reads
it in the teacher's and pairs states, as a run does once for a generation batch. Beside it stands
the floor of an update on the same response, SmolLM2-135M's shape with random weights: the teacher's
base forward, and the student's forward and backward.

Times are CPU seconds of this process with one thread, which other work on the machine disturbs
less than wall-clock time.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from oprd.models.own_tokens import OwnTokens, add_responses
from oprd.models.reading import base_forward
from oprd.models.special_tokens import SpecialTokens
from oprd.models.views import PROMPT_MASK

DOCS = Path(__file__).parents[1] / "docs"


def text() -> str:
    """What responses are cut from."""
    return "\n".join(path.read_text() for path in sorted(DOCS.glob("*.md")))


def learned(size: int) -> PreTrainedTokenizerFast:
    """Byte pairs of the documentation."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        [text()], BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<pad>")


def seconds(run: Callable[[], object]) -> float:
    """CPU seconds of it."""
    began = time.process_time()
    run()
    return time.process_time() - began


def model(layers: int) -> LlamaForCausalLM:
    """SmolLM2-135M's shape; what an update costs does not depend on the weights."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=49_152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=layers,
            num_attention_heads=9,
            num_key_value_heads=3,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        )
    )


def floor(student: Any, teacher: Any, ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """The least that an update computes."""
    with torch.no_grad():
        base_forward(teacher, theirs, torch.ones_like(theirs))
    states = base_forward(student, ours, torch.ones_like(ours)).last_hidden_state
    assert states is not None
    states.sum().backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student")
    parser.add_argument("--teacher")
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--layers", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sizes = {"student": 8000, "teacher": 3000}
    both = tuple(
        AutoTokenizer.from_pretrained(name) if (name := getattr(options, role)) else learned(size)
        for role, size in sizes.items()
    )
    own = OwnTokens(*both, SpecialTokens.of(*both, (set(), set())))
    written = both[0](text(), add_special_tokens=False)["input_ids"]
    starts = [n * options.tokens for n in range(options.rounds)]
    if len(written) < options.tokens * options.rounds:
        raise SystemExit(f"the docs have {len(written)} tokens: lower --tokens or --rounds.")
    found = []
    for start in starts:
        ids = torch.tensor([written[start : start + options.tokens]])
        output = {
            "completion_ids": ids,
            "completion_mask": torch.ones_like(ids),
            "positions": torch.ones_like(ids).bool(),
            PROMPT_MASK: torch.ones(1, 1, 1, dtype=torch.long),
        }
        took = seconds(lambda output=output: add_responses(output, own, None))
        met = int(output["positions"].sum()) / options.tokens
        found.append((took, met, output["teacher_own_ids"].shape[1] - 1))
    times = [took for took, _, _ in found]
    longest = max(length for _, _, length in found)
    student, teacher = model(options.layers), model(options.layers)
    ours, theirs = (torch.randint(0, 49_152, (1, n)) for n in (options.tokens, longest))
    update = seconds(lambda: floor(student, teacher, ours, theirs))
    report = {
        "tokens": options.tokens,
        "teacher_tokens": [length for _, _, length in found],
        "shared": [round(met, 3) for _, met, _ in found],
        "milliseconds": {
            "median": round(1e3 * statistics.median(times), 2),
            "min": round(1e3 * min(times), 2),
            "max": round(1e3 * max(times), 2),
        },
        "update_seconds": round(update, 2),
        "share_of_an_update": statistics.median(times) / update,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
