"""Teachers that reinforcement learning made of a student, as the paper's was.

GRPO with the grader's verdict as the reward, and nothing else: no reference, no other term.
"""

import importlib
import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from datasets import Dataset
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from lab.models import CACHE, Trained, obtain
from lab.moments import Moment
from lab.quiet import quieten
from lab.scores import Scores, scores, write_whole
from lab.threads import threads

# Of the problems that it learns from, which are none of those that others train on.
PROBLEMS_SEED = 2000
REWARDS = "rewards.json"


def verdict(task: ModuleType, text: str, gold: str) -> float:
    """The reward of a response: 1 where the grader calls it right."""
    return float(task.grade(text, gold).correct)


@dataclass(frozen=True)
class Reinforced(Trained):
    """What GRPO makes of a model on its own task.

    Attributes:
        start: what it begins as.
        steps: optimizer steps.
        prompts: different ones a step.
        completions: of each prompt.
        learning_rate: constant.
        seed: of completions and of the order of problems.
        keep_every: steps between the checkpoints that stay.
        at: the step whose model it is, of those that stay; the last where None.

    Raises:
        ValueError: the last step, or the one asked for, would leave no checkpoint.
    """

    start: Moment
    steps: int = 350
    prompts: int = 16
    completions: int = 16
    learning_rate: float = 3e-4
    seed: int = 0
    keep_every: int = 50
    at: int | None = None

    def __post_init__(self) -> None:
        if any(step % self.keep_every for step in (self.steps, self.step)):
            raise ValueError(
                f"steps={self.steps} and at={self.at} must be multiples of {self.keep_every}."
            )
        if self.step > self.steps:
            raise ValueError(f"at={self.at} is beyond the last of {self.steps} steps.")

    @property
    def step(self) -> int:
        """Whose model it is."""
        return self.at or self.steps

    @property
    def task(self) -> str:
        """The module of its task."""
        return self.start.task

    @property
    def key(self) -> dict[str, Any]:
        """Everything that decides what the model is."""
        return {**self.training[1], "at": self.step}

    @property
    def training(self) -> tuple[str, dict[str, Any]]:
        """See `Trained`; a step of it is no other training."""
        key = {**asdict(replace(self, at=None)), "start": self.start.key}
        return f"{self.start.recipe.task}-grpo", key

    @property
    def made_by(self) -> tuple[Trained, ...]:
        """What has to be trained for it."""
        return (*self.start.made_by, replace(self, at=None))

    def path(self) -> Path:
        """The folder of the model; it is made first where it is not there."""
        return obtain(self) / f"checkpoint-{self.step}"

    def scores(self, samples: int) -> Scores:
        """Its figures on the reported problems, computed once."""
        file = CACHE / "scores" / self.folder.name / f"{self.step}, {samples} samples.json"
        return scores(self.path(), self.task, file, {"reported": samples})

    def rewards(self) -> dict[str, list[float]]:
        """The mean reward at temperature 1 by `step`, a mean over those since the one before."""
        obtain(self)
        return json.loads((self.folder / REWARDS).read_text(encoding="utf-8"))

    def train(self) -> None:
        """Make it; the caller holds the lock, and what an earlier attempt left is dropped."""
        quieten()
        begun = self.start.path()
        typer.echo(f"training the model {self.folder.name}, {self.steps} steps of GRPO")
        shutil.rmtree(self.folder, ignore_errors=True)
        task = importlib.import_module(self.task)
        problems = task.examples("train", self.steps * self.prompts, seed=PROBLEMS_SEED + self.seed)

        def reward(completions: list[str], answer: list[str], **_: Any) -> list[float | None]:
            return [verdict(task, *of) for of in zip(completions, answer, strict=True)]

        trainer = GRPOTrainer(
            model=str(begun),
            reward_funcs=reward,
            args=GRPOConfig(
                output_dir=str(self.folder),
                max_steps=self.steps,
                per_device_train_batch_size=self.prompts * self.completions,
                num_generations=self.completions,
                max_completion_length=task.LONGEST_RESPONSE,
                learning_rate=self.learning_rate,
                lr_scheduler_type="constant",
                beta=0.0,
                gradient_checkpointing=False,
                use_cpu=True,
                bf16=False,
                save_steps=self.keep_every,
                save_only_model=True,
                logging_steps=max(1, self.keep_every // 5),
                report_to=[],
                disable_tqdm=True,
                seed=self.seed,
            ),
            train_dataset=Dataset.from_list(
                [{"prompt": prompt, "answer": task.answer(solved)} for prompt, solved in problems]
            ),
        )
        trainer.remove_callback(PrinterCallback)
        with threads(1):
            trainer.train()
        logged = [line for line in trainer.state.log_history if "reward" in line]
        curve = {name: [line[name] for line in logged] for name in ("step", "reward")}
        write_whole(self.folder / REWARDS, json.dumps(curve))
        (self.folder / "finished").touch()
