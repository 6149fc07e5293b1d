"""Healing by three methods at equal time: OPRD, the full reverse KL, and supervised fine-tuning.

    python recipes/heal/compare.py

SmolLM2-135M with the demo's adapter merged loses six of 30 blocks and is healed on sums of two
numbers. Each method has the same seconds of one core, which decide its steps; the supervised one
spends some of them on the whole model's responses. Rates are chosen by runs of half that time and
one seed, on other held-out problems than those reported; then three seeds run at the best. What was
lost is accuracy, and nats a token on the whole model's responses to held-out problems. The claim,
written before the runs: OPRD recovers more of either than both others.

Runs that are in `results` are not made again, so that this goes on where it was ended; methods may
be named to make theirs alone, in processes side by side.
"""

import copy
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from datasets import Dataset
from heal import Harmed, demo_model, make_trainer, options_of
from prune import responses
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from oprd.analysis.machine import machine
from oprd.core.capture import num_layers
from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.tasks.base import Task
from oprd.evaluation.tasks.load import generate_task
from oprd.models.blocks import drop_blocks, original_pairs
from oprd.models.generate import left_pad
from oprd.runs.record import versions

RESULTS = Path(__file__).parent / "results"
DROPPED = tuple(range(10, 16))
# Of a run, on one core.
SECONDS = 40.0
ROLLOUTS = 4
MAX_TOKENS = 24
LADDER = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
RATES = LADDER[1:4]
SEEDS = (0, 1, 2)
SUPERVISED = "supervised"
METHODS: dict[str, dict[str, Any]] = {
    "OPRD": {},
    "reverse KL": {"representation_weight": 0.0, "output_loss": "reverse_kl"},
    SUPERVISED: {},
}
# Held-out problems: those that are reported, and others that rates are chosen on.
REPORTED, TUNING = 48, 24
# Steps of the run that says how long one takes.
TIMED = 3


@dataclass(frozen=True)
class Run:
    """A healing.

    Attributes:
        method: a name in `METHODS`.
        rate: the peak of a cosine.
        seed: of problems and rollouts.
        seconds: of one core.
        part: the held-out problems that it is evaluated on.
    """

    method: str
    rate: float
    seed: int
    seconds: float
    part: str

    @property
    def found(self) -> dict[str, Any]:
        """Its figures; it is made where it is not there."""
        name = f"{self.method.replace(' ', '-')}-{self.rate:g}-{self.seed}-{self.part}"
        return kept(name, lambda: {**asdict(self), **self._made()})

    def _made(self) -> dict[str, Any]:
        name = f"seconds-{self.method.replace(' ', '-')}"
        each = kept(name, lambda: {"step": seconds_of_step(self.method)})["step"]
        steps = max(1, round(self.seconds / each))
        student, seconds = trained(self.method, self.rate, self.seed, steps)
        return {"steps": steps, "taken": seconds, **figures(student, self.part)}


def main() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    RESULTS.mkdir(exist_ok=True)
    asked = sys.argv[1:] or list(METHODS)
    best = {method: best_rate(method) for method in asked}
    runs = {m: [Run(m, best[m], seed, SECONDS, "reported").found for seed in SEEDS] for m in best}
    if len(asked) < len(METHODS):
        return
    before = kept("before", lambda: figures(cut(), "reported"))
    above = kept("whole", lambda: figures(demo()[0], "reported"))
    table = {m: recovered(of, before, above) for m, of in runs.items()}
    beside = {
        method: {
            name: estimate([a - b for a, b in zip(table["OPRD"][name], of[name], strict=True)])
            for name in of
        }
        for method, of in table.items()
        if method != "OPRD"
    }
    found = {
        "versions": versions(),
        "machine": machine(),
        "dropped": DROPPED,
        "depth": num_layers(demo()[0]),
        "seconds": SECONDS,
        "whole": short(above),
        "before": short(before),
        "methods": {
            method: {
                "rate": best[method],
                "steps": [run["steps"] for run in runs[method]],
                "taken": [run["taken"] for run in runs[method]],
                "accuracy": [run["accuracy"] for run in runs[method]],
                "nats": [run["nats"] for run in runs[method]],
                "recovered": {name: estimate(values) for name, values in of.items()},
            }
            for method, of in table.items()
        },
        "OPRD minus": beside,
    }
    text = json.dumps(found, indent=1)
    (RESULTS / "compared.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def best_rate(method: str) -> float:
    """Of a grid that goes on where its best one is at an end, by accuracy and then by nats."""
    tried = list(RATES)
    while True:
        runs = {rate: Run(method, rate, 0, SECONDS / 2, "tuning").found for rate in sorted(tried)}
        best = max(runs, key=lambda rate: (runs[rate]["accuracy"], -runs[rate]["nats"]))
        step = {min(tried): -1, max(tried): 1}.get(best, 0)
        beyond = LADDER.index(best) + step
        if step == 0 or not 0 <= beyond < len(LADDER):
            return best
        tried.append(LADDER[beyond])


def recovered(
    runs: Sequence[dict[str, Any]], before: dict[str, Any], whole: dict[str, Any]
) -> dict[str, list[float]]:
    """By figure, the share of what was lost that each run won back."""
    return {
        name: [(run[name] - before[name]) / (whole[name] - before[name]) for run in runs]
        for name in ("accuracy", "nats")
    }


def estimate(values: Sequence[float]) -> dict[str, float]:
    """A mean over seeds, and the ends of its 95% t-interval."""
    data = torch.tensor(values, dtype=torch.float64)
    half = float(data.std() / len(data) ** 0.5 * stats.t.ppf(0.975, len(data) - 1))
    mean = float(data.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half}


@cache
def demo() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The whole model and its tokenizer."""
    return demo_model()


@cache
def cut() -> PreTrainedModel:
    """What is healed, as it is before."""
    return drop_blocks(demo()[0], DROPPED)


def trained(method: str, rate: float, seed: int, steps: int) -> tuple[PreTrainedModel, float]:
    """A healed student, and the seconds of one core that it took."""
    whole, tokenizer = demo()
    student = copy.deepcopy(cut())
    harmed = Harmed(student, original_pairs(num_layers(whole), DROPPED), "six blocks")
    task = sums("train", steps * ROLLOUTS, seed=1000 + seed)
    shared: dict[str, Any] = {
        "seed": seed,
        "max_steps": steps,
        "per_device_train_batch_size": ROLLOUTS,
        "learning_rate": rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": steps // 10,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "save_strategy": "no",
        "report_to": [],
    }
    with TemporaryDirectory() as folder:
        shared["output_dir"] = folder
        started = time.process_time()
        if method == SUPERVISED:
            answers = answered(task, seed)
            trainer: Any = SFTTrainer(
                model=harmed.student,
                processing_class=tokenizer,
                train_dataset=answers,
                args=SFTConfig(bf16=False, loss_type="chunked_nll", **shared),
            )
        else:
            more = {**shared, **METHODS[method], "max_completion_length": MAX_TOKENS}
            # What is no method's own, such as checking settings, is not counted.
            trainer = make_trainer(whole, harmed, tokenizer, task, options_of([]), **more)
            started = time.process_time()
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        seconds = time.process_time() - started
    return student.eval(), seconds


def sums(split: str, count: int, seed: int = 0) -> Task:
    """Problems of two numbers, of which additions are about half."""
    task = generate_task("additions", split, 3 * count + 50, seed=seed)
    own = [problem for problem in task.problems if str(problem.prompt).count("+") == 1]
    return replace(task, problems=tuple(own[:count]))


def answered(task: Task, seed: int) -> Dataset:
    """The whole model's responses to problems, as tokens of which the response is learned."""
    whole, tokenizer = demo()
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in task.rows()]
    found = responses(whole, tokenizer, prompts, MAX_TOKENS, seed)
    return Dataset.from_list(
        [
            {
                "input_ids": [*prompt, *response.ids],
                "completion_mask": [0] * len(prompt) + [1] * len(response.ids),
            }
            for prompt, response in zip(prompts, found, strict=True)
        ]
    )


def seconds_of_step(method: str) -> float:
    """What a step takes on one core."""
    return trained(method, RATES[0], 99, TIMED)[1] / TIMED


def figures(model: PreTrainedModel, part: str) -> dict[str, Any]:
    """Accuracy on held-out problems, and nats a token of what the whole model answers there."""
    every = sums("test", REPORTED + TUNING)
    own = every.problems[:REPORTED] if part == "reported" else every.problems[REPORTED:]
    task = replace(every, problems=own)
    evaluation = evaluate_model(
        model,
        demo()[1],
        task,
        samples=1,
        temperature=0.7,
        top_p=1.0,
        max_new_tokens=MAX_TOKENS,
        batch_size=REPORTED,
        progress=False,
    )
    averages = evaluation.averages()
    return {
        "accuracy": float(averages.mean()),
        "nats": nats(model, answered(task, seed=7)),
        "problems": averages.tolist(),
    }


@torch.no_grad()
def nats(model: PreTrainedModel, answers: Dataset) -> float:
    """The mean of −log p over the tokens of responses."""
    total, count = 0.0, 0
    for some in answers.iter(16):
        read = left_pad(some["input_ids"], 0)
        counted = left_pad(some["completion_mask"], 0)["input_ids"][:, 1:].bool()
        ids = read["input_ids"][:, 1:][counted]
        logits: Tensor = model(**read).logits[:, :-1][counted]
        total += float(torch.nn.functional.cross_entropy(logits, ids, reduction="sum"))
        count += len(ids)
    return total / count


def kept(name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What stands in a file of the results, or is made and put there."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        text = json.dumps(make(), indent=1)
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.rename(file)
        print(f"finished {name}", flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def short(found: dict[str, Any]) -> dict[str, float]:
    return {name: found[name] for name in ("accuracy", "nats")}


if __name__ == "__main__":
    main()
