"""How well the demo's student learns under several values of one setting, over several seeds.

    python benchmarks/accuracy.py prefix_gradients true false --with positions=last_k position_k=8
    python benchmarks/accuracy.py updates_per_rollout 1 2 4

All else is the demo's. For each seed and value a student is trained anew and evaluated on the same
held-out problems. Results are added to a file as they come, and what is there is not made again: a
run that was stopped goes on.
"""

import argparse
import json
import statistics
import sys
import warnings
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "recipes" / "demo"))

from demo import evaluate_on, make_trainer  # noqa: E402 # found on the path above
from transformers import PrinterCallback  # noqa: E402
from transformers.utils import logging  # noqa: E402

from oprd.evaluation.tasks.load import generate_task  # noqa: E402

# Problems of a seed's training set begin here: the demo's own is 2.
FIRST_SEED = 100


def main() -> None:
    options = parse_options()
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    options.run.mkdir(parents=True, exist_ok=True)
    file = options.run / "results.jsonl"
    shared = dict(map(setting, options.settings))
    results = []
    for seed in options.seeds:
        for value in map(yaml.safe_load, options.values):
            settings = {**shared, options.name: value}
            key = {**settings, "seed": seed, **arguments(options)}
            done = (
                [json.loads(line) for line in file.read_text().splitlines()]
                if file.exists()
                else []
            )
            found = next((line for line in done if line["key"] == key), None)
            if found is None:
                found = {"key": key, **train_and_evaluate(options, seed, settings)}
                with file.open("a") as lines:
                    lines.write(json.dumps(found) + "\n")
            results.append((value, found))
    print_results(options, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the setting, as in OPRDConfig")
    parser.add_argument("values", nargs="+")
    parser.add_argument("--with", dest="settings", nargs="+", default=[], metavar="NAME=VALUE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts a step")
    parser.add_argument("--problems", type=int, default=200, help="held-out problems")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "accuracy")
    return parser.parse_args()


def setting(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, yaml.safe_load(value)


def arguments(options: argparse.Namespace) -> dict[str, Any]:
    """What else a result depends on."""
    names = ("steps", "rollouts", "problems", "learning_rate")
    return {name: getattr(options, name) for name in names}


def train_and_evaluate(
    options: argparse.Namespace, seed: int, settings: dict[str, Any]
) -> dict[str, float]:
    count = options.steps * options.rollouts
    train = generate_task("additions", "train", count, seed=FIRST_SEED + seed)
    held_out = generate_task("additions", "test", options.problems)
    trainer = make_trainer(options, train, seed=seed, disable_tqdm=True, **settings)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    name = "-".join([*map(str, settings.values()), str(seed)])
    evaluation = evaluate_on(held_out, name, trainer.student, trainer, options.run / "samples")
    logs = [line for line in trainer.state.log_history if "seconds/student" in line]
    return {
        "solved": evaluation.summary.average.value,
        "seconds": next(
            line["train_runtime"] for line in trainer.state.log_history if "train_runtime" in line
        ),
        "student_seconds": statistics.median(line["seconds/student"] for line in logs),
        "last_loss": statistics.mean(line["loss"] for line in logs[-8:]),
    }


def print_results(options: argparse.Namespace, results: list[tuple[Any, dict[str, Any]]]) -> None:
    print(
        f"{options.steps} steps of {options.rollouts} rollouts, {options.problems} held-out "
        f"problems, seeds {', '.join(map(str, options.seeds))}; {' '.join(options.settings)}"
    )
    columns = ("solved", "seconds", "student_seconds", "last_loss")
    print(f"{options.name:20}" + "".join(f"{column:>26}" for column in columns))
    for value in map(yaml.safe_load, options.values):
        found = [result for of, result in results if of == value]
        cells = [
            f"{statistics.mean(numbers):.3f} ({min(numbers):.3f} – {max(numbers):.3f})"
            for numbers in ([result[column] for result in found] for column in columns)
        ]
        print(f"{value!s:20}" + "".join(f"{cell:>26}" for cell in cells))


if __name__ == "__main__":
    main()
