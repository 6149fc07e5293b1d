"""One distillation run of the lab.

A run is a value, and its folder is named after it, the settings that it gives and its models; for
what the code of a task, a trainer or the package does there is `lab.models.VERSION`. A run that is
there is not made again; one that was killed while it trained is made again from its beginning,
which at a few minutes a run is simpler than to resume it. Those of a pair whose runs take long
leave their records with the committed results, so that a comparison can be made in many sittings.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback

from lab import both
from lab.methods import (
    ANOTHER_REFERENCE,
    CONSUMED,
    FEW_PROMPTS,
    HEADS,
    HEADS_READ_AGAIN,
    MERGED,
    METHODS,
    PAST,
    RANDOM_DIRECTION,
    SECOND_STAGES,
    SELF_TAUGHT,
    TRAINED_PROJECTION,
    WRITERS,
)
from lab.models import CACHE, VERSION
from lab.moments import Moment
from lab.offpolicy import given, write_responses
from lab.pairs import PAIRS, Pair
from lab.pretrained import Pretrained
from lab.quiet import quieten
from lab.scores import Scores, samples, scores
from lab.specialists import Specialists
from lab.tokens import MORE_STEPS, RAW_IDS
from lab.variants.consumed import select_consumed
from lab.variants.direction import random_direction
from lab.variants.live_heads import LiveHeads
from lab.variants.projection import train_projection
from lab.variants.supervised import Supervised
from oprd import OPRDConfig, OPRDTrainer
from oprd.analysis.machine import machine
from oprd.models.load import load_tokenizer
from oprd.runs.metrics import METRICS, read_metrics
from oprd.runs.record import RATE_TEST

# Held-out problems to which a student writes where its LM head is looked at again.
LOOKED_AT = 250
# Of runs that take long, with the results.
RECORDS = Path(__file__).parent / "results"
MADE_WITH, SCORES = "run.json", "scores.json"
# Of the problems that runs of the first seed train on.
PROBLEMS_SEED = 1000


@dataclass(frozen=True)
class Run:
    """A distillation run.

    Attributes:
        pair: student, teacher and task: a name of `lab.pairs.PAIRS`.
        method: a name of `lab.methods.METHODS`.
        learning_rate: the peak of a cosine schedule; 0 where the method finds its own.
        seed: of rollouts and of the order of problems.
        steps: optimizer steps.
        rollouts: rollouts a step.
        eval_every: steps between evaluations.
        options: settings of `OPRDConfig` that win over the method's, as pairs.
        quick: whether it is evaluated on few samples a problem, and on no tuning problems.
    """

    pair: str
    method: str
    learning_rate: float
    seed: int
    steps: int = 300
    rollouts: int = 64
    eval_every: int = 25
    options: tuple[tuple[str, Any], ...] = ()
    quick: bool = False

    @property
    def length(self) -> int:
        """Optimizer steps, of a method whose steps take less time more."""
        return self.steps * MORE_STEPS.get(self.method, 1)

    @property
    def settings(self) -> dict[str, Any]:
        """What of `OPRDConfig` the method and the options decide, the length included."""
        chosen = {"positions": "all", **METHODS[self.method], **dict(self.options)}
        if self.method in MORE_STEPS:
            chosen["eval_steps"] = self.eval_every * MORE_STEPS[self.method]
        if self.method not in SECOND_STAGES:
            return {**chosen, "max_steps": self.length}
        share, rate, second = SECOND_STAGES[self.method]
        first = round(share * self.steps)
        stages = [
            {"steps": first, "learning_rate": rate},
            {"steps": self.steps - first, **second},
        ]
        return {**chosen, "stages": stages}

    @property
    def all_settings(self) -> dict[str, Any]:
        """What of `OPRDConfig` is not a default."""
        return {**_shared_settings(self), **self.settings}

    @property
    def samples(self) -> dict[str, int]:
        """Responses a problem, by what they are for; see `lab.scores`."""
        if self.quick:
            return {"reported": 2, "curve": 1}
        return samples(PAIRS[self.pair].task)

    @property
    def folder(self) -> Path:
        """Where it is made, and where it stays unless its pair's runs are recorded."""
        return CACHE / "runs" / self.name

    @property
    def record(self) -> Path:
        """Where what it found stays of a pair whose runs are recorded: whole or not at all."""
        part = "quick/runs" if self.quick else "runs"
        return RECORDS / part / f"v{VERSION}" / self.name

    @property
    def kept(self) -> Path:
        """Where what it found is read."""
        return self.record if PAIRS[self.pair].recorded else self.folder

    @property
    def name(self) -> str:
        """Of its folder."""
        made_of = {
            **asdict(self),
            "samples": self.samples,
            "settings": self.all_settings,
            "models": PAIRS[self.pair].key,
        }
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:10]
        name = f"{self.pair} {self.method} {self.learning_rate:g} {self.seed} {digest}"
        return "".join(c if c.isalnum() or c in ".-" else "_" for c in name)

    @property
    def finished(self) -> bool:
        """Whether its student is trained and evaluated."""
        return (self.kept / SCORES).exists()

    def metrics(self) -> list[dict[str, Any]]:
        """What it logged, one mapping a line, each with its `step`."""
        return read_metrics(self.kept)

    def versions(self) -> dict[str, str]:
        """Of what it was made with."""
        return self._made_with["versions"]

    @property
    def machine(self) -> dict[str, Any] | None:
        """Which one recorded it, None where that was not written down."""
        return self._made_with.get("machine")

    @property
    def rate_found(self) -> float | None:
        """The rate that its range test chose, None where it had none."""
        found = self._made_with.get(RATE_TEST)
        return found and found["learning_rate"]

    @property
    def _made_with(self) -> dict[str, Any]:
        return json.loads((self.kept / MADE_WITH).read_text(encoding="utf-8"))

    def scores(self) -> Scores:
        """The figures of its student.

        Raises:
            FileNotFoundError: it is not finished.
        """
        return json.loads((self.kept / SCORES).read_text(encoding="utf-8"))


def execute(run: Run) -> None:
    """Distil and evaluate, and leave metrics, student and scores."""
    quieten()
    if not (run.folder / "trained").exists():
        _distil(run)
        (run.folder / "trained").touch()
    scores(run.folder, PAIRS[run.pair].task, run.folder / SCORES, run.samples)
    if PAIRS[run.pair].recorded:
        _record(run)


def _record(run: Run) -> None:
    """Leave what a run found with the results; the rest of it goes."""
    unfinished = run.record.with_name(f"{run.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for file in (METRICS, SCORES):
        shutil.copy(run.folder / file, unfinished)
    made_with = json.loads((run.folder / MADE_WITH).read_text(encoding="utf-8"))
    # The others name folders of this machine.
    kept = {name: made_with[name] for name in ("versions", RATE_TEST) if name in made_with}
    kept["machine"] = machine()
    (unfinished / MADE_WITH).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(run.record)
    shutil.rmtree(run.folder)


def _distil(run: Run) -> None:
    """Train; what an earlier attempt left is dropped."""
    shutil.rmtree(run.folder, ignore_errors=True)
    pair = PAIRS[run.pair]
    task, settings = pair.task_module, run.all_settings
    # Drawn anew: some may be among those that the models were trained on, none is held out.
    problems = _problems(run)
    solutions = [solution for _, solution in problems]
    columns: dict[str, list[str]] = {}
    if run.method in SELF_TAUGHT:
        columns = {"solution": solutions, "another": [*solutions[1:], *solutions[:1]]}
    if run.method in MERGED:
        columns = {"teacher": [both.task_of(prompt) for prompt, _ in problems]}
    kind = Supervised if run.method in MORE_STEPS else OPRDTrainer
    students = load_tokenizer(str(pair.student.path())) if run.method == RAW_IDS else None
    trainer = kind(
        model=str(pair.student.path()),
        teacher_model=None if run.method in SELF_TAUGHT else _teacher(pair),
        args=OPRDConfig(output_dir=str(run.folder), **settings),
        train_dataset=Dataset.from_dict({"prompt": [prompt for prompt, _ in problems], **columns}),
        # The teacher's embedding has a row for each of the student's ids.
        teacher_processing_class=students,
        reference_model=str(_reference(run).path()) if run.method in PAST else None,
    )
    if run.method == RANDOM_DIRECTION:
        random_direction(trainer)
    if run.method in WRITERS:
        source = WRITERS[run.method]
        responses = write_responses(source, pair, problems, run.folder, run.seed)
        trainer.rollouts.write = given(responses)
    if run.method == CONSUMED:
        trainer.rollouts.select = select_consumed
    if run.method == TRAINED_PROJECTION:
        train_projection(trainer)
    if run.method in (HEADS, HEADS_READ_AGAIN):
        held_out = [prompt for prompt, _ in task.examples("test", LOOKED_AT, seed=0)]
        refresh = run.method == HEADS_READ_AGAIN
        every, limit = run.eval_every, settings["max_completion_length"]
        trainer.add_callback(LiveHeads(trainer, held_out, limit, every, refresh=refresh))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()


def _problems(run: Run) -> list[tuple[str, str]]:
    """Prompts with their solutions, one a rollout: different ones, or a few again and again."""
    count = run.length * run.rollouts
    different = min(count, FEW_PROMPTS.get(run.method, count))
    task = PAIRS[run.pair].task_module
    drawn = task.examples("train", different, seed=PROBLEMS_SEED + run.seed)
    return [drawn[place % different] for place in range(count)]


def _teacher(pair: Pair) -> str | dict[str, str]:
    """The folder of a pair's teacher, or of each of several by name."""
    if isinstance(pair.teacher, Specialists):
        return {name: str(path) for name, path in pair.teacher.paths().items()}
    return str(pair.teacher.path())


def _reference(run: Run) -> Moment | Pretrained:
    """What a run past the teacher goes on from: its student, or for a control another's."""
    student = PAIRS[run.pair].student
    if run.method != ANOTHER_REFERENCE:
        return student
    assert isinstance(student, Moment), "a pretrained model has no other seed"
    other = replace(student.recipe, seed=student.recipe.seed + 1, until=student.step)
    return replace(student, recipe=other)


def _shared_settings(run: Run) -> dict[str, Any]:
    """What all methods have in common unless they say otherwise."""
    task = PAIRS[run.pair].task
    return {
        "seed": run.seed,
        "per_device_train_batch_size": run.rollouts,
        "per_device_eval_batch_size": 512,
        "max_completion_length": PAIRS[run.pair].task_module.LONGEST_RESPONSE,
        "learning_rate": run.learning_rate,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "eval_tasks": f"python:{task}",
        "eval_samples": run.samples["curve"],
        "eval_steps": run.eval_every,
        "diagnostics_steps": run.eval_every,
        "save_strategy": "no",
        "disable_tqdm": True,
        "report_to": [],
    }
