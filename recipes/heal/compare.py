"""Healing by three methods at equal time: OPRD, the full reverse KL, and supervised fine-tuning.

    python recipes/heal/compare.py smollm2
    python recipes/heal/compare.py sums

SmolLM2-135M with the demo's adapter merged loses six of 30 blocks and is healed on sums of two
numbers; the teacher of the lab's sums (`python -m lab list`) loses one of four. Each method has the
same seconds of one core, which decide its steps; the supervised one spends some of them on the
whole model's responses. Rates are chosen by shorter runs of one seed, on other held-out problems
than those reported, and these say what a step takes; then three seeds run at the best. What was
lost is accuracy, and nats a token on the whole model's responses to held-out problems. The claim,
written before the runs: OPRD recovers more of either than both others.

Runs that are in `results` are not made again, so that this goes on where it was ended; methods may
be named after the case to make theirs alone, in processes side by side.
"""

import copy
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from datasets import Dataset
from heal import ROOT, Harmed, demo_model, make_trainer, options_of
from prune import responses
from scipy import stats
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer

from oprd.analysis.machine import machine
from oprd.core.capture import num_layers
from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.tasks.base import Problem, Task
from oprd.evaluation.tasks.load import generate_task, load_task
from oprd.models.blocks import drop_blocks, original_pairs
from oprd.models.generate import left_pad
from oprd.models.load import load_model
from oprd.models.prompt import render_prompt
from oprd.runs.record import versions

RESULTS = Path(__file__).parent / "results"
SUPERVISED = "supervised"
METHODS: dict[str, dict[str, Any]] = {
    "OPRD": {},
    "reverse KL": {"representation_weight": 0.0, "output_loss": "reverse_kl"},
    SUPERVISED: {},
}
FIGURES = ("accuracy", "nats")
SEEDS = (0, 1, 2)
# Steps of the run that says how long one takes.
TIMED = 3


@dataclass(frozen=True)
class Case:
    """A model and what it loses.

    Attributes:
        name: of its folder among the results.
        load: gives the whole model and its tokenizer.
        dropped: the numbers of its blocks.
        problems: gives a split's problems, so many by a seed.
        counts: of held-out problems, those that are reported and those that rates are chosen on.
        seconds: of a run, on one core.
        tuned: those of a run that a rate is chosen by.
        rollouts: of a step.
        limit: most tokens of a response.
        ladder: of rates, of which the middle three are tried first.
    """

    name: str
    load: Callable[[], tuple[PreTrainedModel, PreTrainedTokenizerBase]]
    dropped: tuple[int, ...]
    problems: Callable[[str, int, int], Task]
    counts: tuple[int, int]
    seconds: float
    tuned: float
    rollouts: int
    limit: int
    ladder: tuple[float, ...]

    @property
    def rates(self) -> list[float]:
        """That are tried first."""
        middle = len(self.ladder) // 2
        return list(self.ladder[middle - 1 : middle + 2])

    def held_out(self, part: str) -> Task:
        """The "reported" problems, or the "tuning" ones, none of which is reported."""
        every, reported = self.problems("test", sum(self.counts), 0), self.counts[0]
        own = every.problems[:reported] if part == "reported" else every.problems[reported:]
        return replace(every, problems=own)


@dataclass(frozen=True)
class Run:
    """A healing.

    Attributes:
        case: a name in `CASES`.
        method: a name in `METHODS`.
        rate: the peak of a cosine.
        seed: of problems and rollouts.
        seconds: of one core.
        part: the held-out problems that it is evaluated on.
    """

    case: str
    method: str
    rate: float
    seed: int
    seconds: float
    part: str

    @property
    def found(self) -> dict[str, Any]:
        """Its figures; it is made where it is not there."""
        name = f"{self.method.replace(' ', '-')}-{self.rate:g}-{self.seed}-{self.part}"
        return kept(self.case, name, lambda: {**asdict(self), **self._made()})

    def _made(self) -> dict[str, Any]:
        case = CASES[self.case]
        steps = max(1, round(self.seconds / self._step(case)))
        student, seconds = trained(case, self.method, self.rate, self.seed, steps)
        return {"steps": steps, "taken": seconds, **figures(case, student, self.part)}

    def _step(self, case: Case) -> float:
        """What a step takes: of a run of the grid about, from some at its beginning."""
        if self.part == "tuning":
            name = f"seconds-{self.method.replace(' ', '-')}"
            make = partial(seconds_of_step, case, self.method)
            return kept(self.case, name, lambda: {"step": make()})["step"]
        runs = grid(case, self.method, case.rates)
        return median(run["taken"] / run["steps"] for run in runs.values())


def main() -> None:
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    name, *methods = sys.argv[1:] or [*CASES][:1]
    case, asked = CASES[name], methods or list(METHODS)
    best = {method: best_rate(case, method) for method in asked}
    runs = {
        m: [Run(name, m, best[m], seed, case.seconds, "reported").found for seed in SEEDS]
        for m in asked
    }
    if len(asked) < len(METHODS):
        return
    before = kept(name, "before", lambda: figures(case, cut(name), "reported"))
    whole = kept(name, "whole", lambda: figures(case, loaded(name)[0], "reported"))
    found = summary(case, runs, before, whole)
    text = json.dumps(found, indent=1)
    (RESULTS / name / "compared.json").write_text(text + "\n", encoding="utf-8")
    print("\n".join(table(found)))


def summary(
    case: Case,
    runs: Mapping[str, Sequence[dict[str, Any]]],
    before: dict[str, Any],
    whole: dict[str, Any],
) -> dict[str, Any]:
    """What each method won back of what was lost, and how far OPRD is ahead, by seed."""
    back = {method: recovered(of, before, whole) for method, of in runs.items()}
    ahead = {
        method: {
            name: estimate([a - b for a, b in zip(back["OPRD"][name], of[name], strict=True)])
            for name in of
        }
        for method, of in back.items()
        if method != "OPRD"
    }
    kept_figures = ("rate", "steps", "taken", "accuracy", "nats")
    return {
        "versions": versions(),
        "machine": machine(),
        "dropped": case.dropped,
        "seconds": case.seconds,
        "rollouts": case.rollouts,
        "whole": {name: whole[name] for name in FIGURES},
        "before": {name: before[name] for name in FIGURES},
        "methods": {
            method: {
                **{name: [run[name] for run in of] for name in kept_figures},
                "recovered": {name: estimate(values) for name, values in back[method].items()},
            }
            for method, of in runs.items()
        },
        "OPRD minus": ahead,
    }


def table(found: Mapping[str, Any]) -> list[str]:
    """A summary as lines of Markdown: what each won back, and how far OPRD is ahead."""
    lines = [
        "| method | rate | steps | accuracy | recovered | nats recovered | OPRD is ahead by |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, of in found["methods"].items():
        accuracy = sum(of["accuracy"]) / len(of["accuracy"])
        back = [_percent(of["recovered"][name]) for name in FIGURES]
        ahead = found["OPRD minus"].get(method, {})
        beside = "; ".join(_points(ahead[name]) for name in ahead)
        cells = (
            method,
            f"{of['rate'][0]:g}",
            str(of["steps"][0]),
            f"{accuracy:.1%}",
            *back,
            beside,
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _percent(of: Mapping[str, float]) -> str:
    return f"{of['mean']:.0%} [{100 * of['low']:.0f}, {100 * of['high']:.0f}]"


def _points(of: Mapping[str, float]) -> str:
    low, high = 100 * of["low"], 100 * of["high"]
    return f"{100 * of['mean']:+.0f} [{low:+.0f}, {high:+.0f}]"


def grid(case: Case, method: str, rates: Sequence[float]) -> dict[float, dict[str, Any]]:
    """Figures of the runs that a rate is chosen by."""
    made = {rate: Run(case.name, method, rate, 0, case.tuned, "tuning") for rate in rates}
    return {rate: run.found for rate, run in made.items()}


def best_rate(case: Case, method: str) -> float:
    """Of a grid that goes on where its best one is at an end, by accuracy and then by nats."""
    tried = case.rates
    while True:
        runs = grid(case, method, tried)
        best = max(runs, key=lambda rate: (runs[rate]["accuracy"], -runs[rate]["nats"]))
        step = {min(tried): -1, max(tried): 1}.get(best, 0)
        beyond = case.ladder.index(best) + step
        if step == 0 or not 0 <= beyond < len(case.ladder):
            return best
        tried.append(case.ladder[beyond])


def recovered(
    runs: Sequence[dict[str, Any]], before: dict[str, Any], whole: dict[str, Any]
) -> dict[str, list[float]]:
    """By figure, the share of what was lost that each run won back."""
    return {
        name: [(run[name] - before[name]) / (whole[name] - before[name]) for run in runs]
        for name in FIGURES
    }


def estimate(values: Sequence[float]) -> dict[str, float]:
    """A mean over seeds, and the ends of its 95% t-interval."""
    data = torch.tensor(values, dtype=torch.float64)
    half = float(data.std() / len(data) ** 0.5 * stats.t.ppf(0.975, len(data) - 1))
    mean = float(data.mean())
    return {"mean": mean, "low": mean - half, "high": mean + half}


@cache
def loaded(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The whole model of a case, and its tokenizer."""
    return CASES[name].load()


@cache
def cut(name: str) -> PreTrainedModel:
    """What is healed, as it is before."""
    return drop_blocks(loaded(name)[0], CASES[name].dropped)


def trained(
    case: Case, method: str, rate: float, seed: int, steps: int
) -> tuple[PreTrainedModel, float]:
    """A healed student, and the seconds of one core that it took."""
    whole, tokenizer = loaded(case.name)
    student = copy.deepcopy(cut(case.name))
    harmed = Harmed(student, original_pairs(num_layers(whole), case.dropped), "blocks")
    task = case.problems("train", steps * case.rollouts, 1000 + seed)
    shared: dict[str, Any] = {
        "seed": seed,
        "max_steps": steps,
        "per_device_train_batch_size": case.rollouts,
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
            answers = answered(case, task, seed)
            trainer: Any = supervised(harmed.student, tokenizer, answers, **shared)
        else:
            more = {**shared, **METHODS[method], "max_completion_length": case.limit}
            # What is no method's own, such as checking settings, is not counted.
            trainer = make_trainer(whole, harmed, tokenizer, task, options_of([]), **more)
            started = time.process_time()
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        seconds = time.process_time() - started
    return student.eval(), seconds


def supervised(
    student: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    answers: Dataset,
    **settings: Any,
) -> SFTTrainer:
    """TRL's trainer on responses, without their prompts."""
    return SFTTrainer(
        model=student,
        processing_class=tokenizer,
        train_dataset=answers,
        args=SFTConfig(
            bf16=False,
            loss_type="chunked_nll",
            # Left out, TRL follows the mask only beside columns of prompts and completions.
            completion_only_loss=True,
            **settings,
        ),
    )


def answered(case: Case, task: Task, seed: int) -> Dataset:
    """The whole model's responses to problems, as tokens of which the response is learned."""
    whole, tokenizer = loaded(case.name)
    prompts = [render_prompt(tokenizer, row["prompt"])[1] for row in task.rows()]
    found = responses(whole, tokenizer, prompts, case.limit, seed)
    return Dataset.from_list(
        [
            {
                "input_ids": [*prompt, *response.ids],
                "completion_mask": [0] * len(prompt) + [1] * len(response.ids),
            }
            for prompt, response in zip(prompts, found, strict=True)
        ]
    )


def seconds_of_step(case: Case, method: str) -> float:
    """What a step takes on one core."""
    return trained(case, method, case.rates[0], 99, TIMED)[1] / TIMED


def figures(case: Case, model: PreTrainedModel, part: str) -> dict[str, Any]:
    """Accuracy on held-out problems, and nats a token of what the whole model answers there."""
    task = case.held_out(part)
    evaluation = evaluate_model(
        model,
        loaded(case.name)[1],
        task,
        samples=1,
        temperature=0.7,
        top_p=1.0,
        max_new_tokens=case.limit,
        batch_size=256,
        progress=False,
    )
    return {
        "accuracy": evaluation.summary.average.value,
        "nats": nats(model, answered(case, task, seed=7)),
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


def kept(case: str, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What stands in a file of the results, or is made and put there."""
    file = RESULTS / case / f"{name}.json"
    if not file.exists():
        text = json.dumps(make(), indent=1)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{os.getpid()}")
        unfinished.write_text(text + "\n", encoding="utf-8")
        unfinished.rename(file)
        print(f"finished {name}", flush=True)
    return json.loads(file.read_text(encoding="utf-8"))


def two_numbers(split: str, count: int, seed: int) -> Task:
    """Additions of two numbers, which are about half of all."""
    task = generate_task("additions", split, 3 * count + 50, seed=seed)
    own = [problem for problem in task.problems if str(problem.prompt).count("+") == 1]
    return replace(task, problems=tuple(own[:count]))


def lab_model() -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The teacher of the lab's sums, which is trained at the first call."""
    sys.path.append(str(ROOT))
    return load_model(str(importlib.import_module("lab.pairs").PAIRS["sums"].teacher.path()))


def lab_sums(split: str, count: int, seed: int) -> Task:
    """The lab's sums of two or three numbers."""
    sys.path.append(str(ROOT))
    found = importlib.import_module("lab.sums").examples(split, count, seed=seed)
    problems = (Problem(str(n), p, s.rpartition("=")[2]) for n, (p, s) in enumerate(found))
    return replace(load_task("python:lab.sums"), problems=tuple(problems))


CASES = {
    case.name: case
    for case in (
        Case(
            "smollm2",
            demo_model,
            tuple(range(10, 16)),
            two_numbers,
            counts=(64, 32),
            seconds=150.0,
            tuned=50.0,
            rollouts=4,
            limit=24,
            ladder=(3e-5, 1e-4, 3e-4, 1e-3, 3e-3),
        ),
        Case(
            "sums",
            lab_model,
            (2,),
            lab_sums,
            counts=(250, 100),
            seconds=20.0,
            tuned=6.0,
            rollouts=32,
            limit=24,
            ladder=(2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2),
        ),
    )
}


if __name__ == "__main__":
    main()
