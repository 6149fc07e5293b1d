"""Drop blocks of a model, save what stays, and print the settings under which the whole teaches it.

    python recipes/heal/prune.py --model Qwen/Qwen3-0.6B --drop 10-15 --output runs/pruned
    python recipes/heal/prune.py --model Qwen/Qwen3-0.6B --drop_least 6 --prompts prompts.jsonl \
        --output runs/pruned

`--drop_least` finds the blocks one after another, each the one without which the last states change
least, on responses that the model writes itself. What is printed goes into a YAML file, with your
data and steps beside it, for `oprd train --config`.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oprd.core.capture import num_layers
from oprd.models.adapters import merge_adapter
from oprd.models.blocks import drop_blocks, least_needed, original_pairs, parse_blocks
from oprd.models.generate import Request, Response, TransformersEngine, left_pad
from oprd.models.load import load_model
from oprd.models.prompt import render_prompt
from oprd.models.reading import View
from oprd.models.sampling import Sampling
from oprd.prompts.load import load_prompts

# Prompts whose responses blocks are chosen on, and the most tokens of one.
MEASURED, LIMIT = 4, 32


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_options(arguments)
    model, tokenizer = load_whole(options.model)
    if options.drop is not None:
        dropped = parse_blocks(options.drop)
    else:
        prompts = load_prompts(options.prompts)["prompt"][:MEASURED]
        dropped = least_needed_on(model, tokenizer, prompts, options.drop_least)
    student = drop_blocks(model, dropped)
    student.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)
    print(f"# Without the blocks {', '.join(map(str, dropped))} of {num_layers(model)}:")
    print(f"model_name_or_path: {options.output}")
    print(f"teacher_model_name_or_path: {options.model}")
    print(f'layer_pairing: "{original_pairs(num_layers(model), dropped)}"')


def parse_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="a path or a hub id")
    add_blocks(parser.add_mutually_exclusive_group(required=True))
    parser.add_argument("--prompts", help="a file or dataset, for --drop_least")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    if options.drop_least is not None and options.prompts is None:
        parser.error("--drop_least measures on responses to --prompts: name them.")
    return options


def add_blocks(group: Any) -> None:
    """The two ways to say which blocks are dropped."""
    group.add_argument("--drop", help="blocks by number from 1, such as 10-15 or 10,12")
    group.add_argument("--drop_least", type=int, help="so many, those that are needed least")


def load_whole(source: str, dtype: str = "auto") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model and its tokenizer, an adapter merged into its base; see `load_model`."""
    model, tokenizer = load_model(source, dtype=dtype)
    if hasattr(model, "peft_config"):
        model = merge_adapter(model, source, "merge it by other means, and name that model")
    return model, tokenizer


def least_needed_on(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Any], count: int
) -> tuple[int, ...]:
    """See `least_needed`; measured on what the model writes after prompts, and on these."""
    ids = [render_prompt(tokenizer, prompt)[1] for prompt in prompts]
    found = responses(model, tokenizer, ids, LIMIT, seed=0)
    sequences = [[*prompt, *response.ids] for prompt, response in zip(ids, found, strict=True)]
    read = left_pad(sequences, 0)
    return least_needed(model, count, View.of_texts(read["input_ids"], read["attention_mask"]))


def responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    limit: int,
    seed: int,
) -> list[Response]:
    """What a model writes at temperature 1 after each prompt's token ids, in their order."""
    sampling = Sampling(1, temperature=1.0, top_p=1.0, max_new_tokens=limit, seed=seed)
    requests = [
        Request(str(n), 0, tuple(ids), sampling.pair_seed("heal", str(n), 0))
        for n, ids in enumerate(prompts)
    ]
    engine = TransformersEngine(model, tokenizer)
    written = [found for batch in engine.generate(requests, sampling) for found in batch]
    return sorted(written, key=lambda response: int(response.request.problem))


if __name__ == "__main__":
    main()
