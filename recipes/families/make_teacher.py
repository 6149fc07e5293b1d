"""Make a teacher of another family: a LoRA adapter that adds two numbers, merged into its base.

    python recipes/families/make_teacher.py --base google/gemma-3-270m --output teacher

`--base` is a folder or a hub id. Supervised on worked solutions of the training split. The loss of
a row is over candidates, the tokens of the solutions and those that the model finds likely
somewhere in them: an LM head over 262,144 tokens would cost more than the model below it. In each
of `--rounds` it is looked at again, since what is no candidate may become likely beside those that
are. `families.py` evaluates what comes out over all tokens.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from sums import problems
from supervised import Tokens, sequences, train
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

# Of the tokens that the base finds likely at a position, and the solutions that are looked at.
LIKELY, LOOKED_AT = 256, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    options = parser.parse_args()

    torch.manual_seed(1)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    base = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.float32)
    drawn = problems("train", options.steps * options.batch_size, seed=1)
    given = sequences(tokenizer, [(problem.prompt, problem.solution) for problem in drawn])
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, adapter)
    candidates = torch.tensor(sorted({token for _, response in given for token in response}))
    size = len(given) // options.rounds
    for number in range(options.rounds):
        candidates = torch.cat([candidates, likely(model, given)]).unique()
        print(f"{len(candidates)} candidate tokens of {base.config.vocab_size}.", flush=True)
        train(
            model,
            given[number * size : (number + 1) * size],
            steps=options.steps // options.rounds,
            learning_rate=options.learning_rate,
            candidates=candidates,
        )
    merged = model.merge_and_unload()
    # It ends a response with the token that it was taught to end one with.
    merged.config.eos_token_id = merged.generation_config.eos_token_id = tokenizer.eos_token_id
    merged.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)


def likely(model: Any, given: Sequence[Tokens]) -> Tensor:
    """[C] tokens that a model finds likely in the first of the responses."""
    found: set[int] = set()
    with torch.no_grad():
        for prompt, response in given[:LOOKED_AT]:
            ids = torch.tensor([[*prompt, *response]])
            logits = model(input_ids=ids, logits_to_keep=len(response) + 1).logits[0]
            found.update(logits.topk(min(LIKELY, logits.shape[-1])).indices.flatten().tolist())
    return torch.tensor(sorted(found))


if __name__ == "__main__":
    main()
