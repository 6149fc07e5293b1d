"""One distillation run of the lab.

A run is a value, and its folder is named after it, the settings that it gives and its models; for
what the code of a task, a trainer or the package does there is `lab.models.VERSION`. A run that is
there is not made again; one that was killed while it trained is made again from its beginning,
which at a few minutes a run is simpler than to resume it.
"""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback

from lab.models import CACHE
from lab.offpolicy import SOLUTIONS, START, TEACHER, given, write_responses
from lab.pairs import PAIRS, Moment
from lab.pretrained import Pretrained
from lab.quiet import quieten
from lab.scores import Scores, samples, scores
from lab.variants import random_direction, select_consumed
from oprd import OPRDConfig, OPRDTrainer
from oprd.runs.metrics import read_metrics
from oprd.runs.record import RATE_TEST

OUTPUT_ONLY = {"representation_weight": 0.0}
TOP_4 = {"output_loss": "topk", "output_loss_kwargs": {"k": 4}}
PLAIN = {"scale": "none"}
UNIT_LENGTH = {"scale": "unit", "representation_weight": 1000 / 128}
NOT_CLIPPED = {"max_grad_norm": 0.0}
# The rate is found by the run itself.
AUTO = {"learning_rate": "auto"}
RANK = 16
# Of the problems that runs of the first seed train on.
PROBLEMS_SEED = 1000
LAYER_SCALES, CONSUMED = "scaled by layer", "states that have read their token"
WITH_SOLUTION, WITH_ANOTHERS = "self, with the solution", "self, with another's solution"
ANOTHER_REFERENCE = "λ = 1.25, a reference of another seed"
RANDOM_DIRECTION = "λ = 1.25, in a random direction"
# Behind a solution, for a model that has to write it once more.
AGAIN = "\nThat was an example with its answer. Answer in the same way: {{ prompt }}"
REVERSE_KL = {"output_loss": "reverse_kl"}
SAMPLED_TOKEN = {"output_loss": "sampled"}


def _bridge(rank: int, mu: float, **settings: Any) -> dict[str, Any]:
    """A bridge at the paper's weight µ, whose distances are sums over the rank."""
    weight = mu * rank if settings.get("scale") == "none" else mu
    fit = {"bridge": "fit", "bridge_rank": rank, "bridge_prompts": 1000, "scale": "unit"}
    return {**fit, "representation_weight": float(weight), **settings}


def _heads(metric: str, **settings: Any) -> dict[str, Any]:
    """A bridge that reads both LM heads, whose distance is the sum of the metric."""
    fit = {"bridge": "fit", "bridge_basis": "heads", "heads_metric": metric, "layers": "last"}
    return {**fit, "bridge_prompts": 1000, **settings}


# Settings of `OPRDConfig`. The lab's vocabularies have 15 and 29 tokens, of which four are to it
# what the paper's sixteen are to 152 thousand.
METHODS: dict[str, dict[str, Any]] = {
    "OPRD": PLAIN,
    "OPRD, unit length": UNIT_LENGTH,
    "top-1": {**OUTPUT_ONLY, **SAMPLED_TOKEN},
    "top-4 of the paper's runs": {
        **OUTPUT_ONLY,
        "output_loss": "topk",
        "output_loss_kwargs": {"k": 4, "renormalize": False},
    },
    "top-4 of Eq. 5": {**OUTPUT_ONLY, **TOP_4},
    "top-16 of the paper's runs": {
        **OUTPUT_ONLY,
        "output_loss": "topk",
        "output_loss_kwargs": {"k": 16, "renormalize": False},
    },
    "reverse KL": {**OUTPUT_ONLY, **REVERSE_KL},
    "forward KL": {**OUTPUT_ONLY, "output_loss": "forward_kl"},
    "top-1 + OPRD": {**PLAIN, **SAMPLED_TOKEN},
    "top-1 + 10 OPRD": {**PLAIN, **SAMPLED_TOKEN, "representation_weight": 10.0},
    "last layer": {**PLAIN, "layers": "last"},
    "even layers": {**PLAIN, "layers": "even"},
    "odd layers": {**PLAIN, "layers": "odd"},
    "first 5 tokens": {**PLAIN, "positions": "first_k", "position_k": 5},
    "last 5 tokens": {**PLAIN, "positions": "last_k", "position_k": 5},
    "last 5 tokens, constant prefix": {
        **PLAIN,
        "positions": "last_k",
        "position_k": 5,
        "prefix_gradients": False,
    },
    "constant prompt": {**PLAIN, "prefix_gradients": False},
    "last token": {**PLAIN, "positions": "last"},
    "mean over tokens": {**PLAIN, "reduction": "token"},
    "weight 0.01": {**PLAIN, "representation_weight": 0.01},
    "weight 100": {**PLAIN, "representation_weight": 100.0},
    "weight 100, gradients not clipped": {**PLAIN, "representation_weight": 100.0, **NOT_CLIPPED},
    "unit length, gradients not clipped": {**UNIT_LENGTH, **NOT_CLIPPED},
    LAYER_SCALES: {"scale": "layer"},
    "scaled by layer, weight 10": {"scale": "layer", "representation_weight": 10.0},
    "unit length, weight 1": {"scale": "unit", "representation_weight": 1.0},
    "unit length, weight 10": {"scale": "unit", "representation_weight": 10.0},
    "OPRD, rate found": {**PLAIN, **AUTO},
    "scaled by layer, weight 10, rate found": {
        "scale": "layer",
        "representation_weight": 10.0,
        **AUTO,
    },
    "unit length, weight 10, rate found": {
        "scale": "unit",
        "representation_weight": 10.0,
        **AUTO,
    },
    CONSUMED: PLAIN,
    "2 updates a rollout": {**PLAIN, "updates_per_rollout": 2},
    "4 updates a rollout": {**PLAIN, "updates_per_rollout": 4},
    "Bridge": _bridge(RANK, 10),
    "Bridge, rrr": _bridge(RANK, 10, bridge_basis="rrr"),
    # The gradient at the last layer spans no more directions than these.
    "Bridge, fisher": _bridge(14, 1, bridge_basis="fisher", scale="none"),
    "Bridge, fisher, unit length": _bridge(14, 10, bridge_basis="fisher"),
    "Heads, centered": _heads("centered"),
    "Heads, prior": _heads("prior"),
    "Heads, fisher": _heads("fisher"),
    # Below at unit length, above in nats: a mean over layers.
    "Heads, fisher, pca below": _heads(
        "fisher", bridge_basis="pca+heads", bridge_rank=RANK, layers="all"
    ),
    "Bridge + reverse KL": _bridge(RANK, 1, **REVERSE_KL),
    "10 Bridge + reverse KL": _bridge(RANK, 10, **REVERSE_KL),
    "Bridge, fisher + reverse KL": _bridge(
        14, 1, bridge_basis="fisher", scale="none", **REVERSE_KL
    ),
    "Bridge, then reverse KL": _bridge(RANK, 10),
    "Bridge, then top-1": _bridge(RANK, 10),
}
# Methods that train on other responses than the student's rollouts, with who wrote them.
OFF_POLICY = {
    "OPRD on the teacher's responses": TEACHER,
    "OPRD on the student's first responses": START,
    "OPRD on worked solutions": SOLUTIONS,
}
METHODS |= dict.fromkeys(OFF_POLICY, PLAIN)
# Targets beyond the teacher, on the line from the student as it began, which is of its lineage.
PAST = {
    f"λ = {extrapolation:g}": {**PLAIN, "extrapolation": extrapolation}
    for extrapolation in (0.75, 1.15, 1.25, 1.5, 2.0)
}
PAST |= {
    "λ = 1.25, unit length": {**UNIT_LENGTH, "extrapolation": 1.25},
    "λ = 1.25, last layer": {**PLAIN, "extrapolation": 1.25, "layers": "last"},
    # What would be as good if the direction did not matter.
    ANOTHER_REFERENCE: {**PLAIN, "extrapolation": 1.25},
    RANDOM_DIRECTION: {**PLAIN, "extrapolation": 1.25},
}
# A student that teaches itself: the teacher reads a worked solution, of its row or of another.
SELF_TAUGHT = {
    name: {**UNIT_LENGTH, "teacher_source": "copy", "teacher_template": template}
    for name, template in {
        WITH_SOLUTION: f"{{{{ solution }}}} {AGAIN}",
        WITH_ANOTHERS: f"{{{{ another }}}} {AGAIN}",
    }.items()
}
METHODS |= {**PAST, **SELF_TAUGHT}
# Methods of two stages: the share of the steps that the first one takes, its rate, and the settings
# of the second, whose rate is the run's.
SECOND_STAGES = {
    "Bridge, then reverse KL": (1 / 4, 1e-3, {**OUTPUT_ONLY, **REVERSE_KL}),
    "Bridge, then top-1": (1 / 4, 1e-3, {**OUTPUT_ONLY, **SAMPLED_TOKEN}),
}


@dataclass(frozen=True)
class Run:
    """A distillation run.

    Attributes:
        pair: student, teacher and task: a name of `lab.pairs.PAIRS`.
        method: a name of `METHODS`.
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
    def settings(self) -> dict[str, Any]:
        """What of `OPRDConfig` the method and the options decide, the length included."""
        chosen = {"positions": "all", **METHODS[self.method], **dict(self.options)}
        if self.method not in SECOND_STAGES:
            return {**chosen, "max_steps": self.steps}
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
        """Where its metrics are."""
        made_of = {
            **asdict(self),
            "samples": self.samples,
            "settings": self.all_settings,
            "models": PAIRS[self.pair].key,
        }
        digest = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:10]
        name = f"{self.pair} {self.method} {self.learning_rate:g} {self.seed} {digest}"
        return CACHE / "runs" / "".join(c if c.isalnum() or c in ".-" else "_" for c in name)

    @property
    def finished(self) -> bool:
        """Whether its student is trained and evaluated."""
        return self._scores.exists()

    @property
    def _scores(self) -> Path:
        return self.folder / "scores.json"

    def metrics(self) -> list[dict[str, Any]]:
        """What it logged, one mapping a line, each with its `step`."""
        return read_metrics(self.folder)

    def versions(self) -> dict[str, str]:
        """Of what it was made with."""
        return self._record["versions"]

    @property
    def rate_found(self) -> float | None:
        """The rate that its range test chose, None where it had none."""
        found = self._record.get(RATE_TEST)
        return found and found["learning_rate"]

    @property
    def _record(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text(encoding="utf-8"))

    def scores(self) -> Scores:
        """The figures of its student, which must be trained."""
        return scores(self.folder, PAIRS[self.pair].task, self._scores, self.samples)


def execute(run: Run) -> None:
    """Distil and evaluate, and leave metrics, student and scores."""
    quieten()
    if not (run.folder / "trained").exists():
        _distil(run)
        (run.folder / "trained").touch()
    run.scores()
    if not PAIRS[run.pair].keeps_students:
        (run.folder / "model.safetensors").unlink(missing_ok=True)


def _distil(run: Run) -> None:
    """Train; what an earlier attempt left is dropped."""
    shutil.rmtree(run.folder, ignore_errors=True)
    pair = PAIRS[run.pair]
    task, settings = pair.task_module, run.all_settings
    # Drawn anew: some may be among those that the models were trained on, none is held out.
    problems = task.examples("train", run.steps * run.rollouts, seed=PROBLEMS_SEED + run.seed)
    solutions = [solution for _, solution in problems]
    columns = {"solution": solutions, "another": [*solutions[1:], *solutions[:1]]}
    trainer = OPRDTrainer(
        model=str(pair.student.path()),
        teacher_model=None if run.method in SELF_TAUGHT else str(pair.teacher.path()),
        args=OPRDConfig(output_dir=str(run.folder), **settings),
        train_dataset=Dataset.from_dict(
            {
                "prompt": [prompt for prompt, _ in problems],
                **(columns if run.method in SELF_TAUGHT else {}),
            }
        ),
        reference_model=str(_reference(run).path()) if run.method in PAST else None,
    )
    if run.method == RANDOM_DIRECTION:
        random_direction(trainer)
    if run.method in OFF_POLICY:
        source = OFF_POLICY[run.method]
        responses = write_responses(source, pair, problems, run.folder, run.seed)
        trainer.rollouts.write = given(responses)
    if run.method == CONSUMED:
        trainer.rollouts.select = select_consumed
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()


def _reference(run: Run) -> Moment | Pretrained:
    """What a run past the teacher goes on from: its student, or for a control another's."""
    student = PAIRS[run.pair].student
    if run.method != ANOTHER_REFERENCE:
        return student
    assert isinstance(student, Moment), "a pretrained model has no other seed"
    return replace(student, recipe=replace(student.recipe, seed=student.recipe.seed + 1))


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
