"""Training runs small enough for a test, on rollouts that the test decides."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from oprd import OPRDConfig, OPRDTrainer
from tests import tiny

PROMPTS = [f"{'what is ' * (n % 3)}{n} + {n * 7 % 11}?" for n in range(16)]

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj", "down_proj"]}


def settings(folder: Path, **options: Any) -> OPRDConfig:
    defaults = {
        "output_dir": str(folder),
        "max_steps": 1,
        "per_device_train_batch_size": 4,
        "max_completion_length": 12,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "sgd",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        # What tests compute beside a run is Eq. 6, or Eq. 14 through a bridge, at a weight of 1.
        **({"representation_weight": 1.0} if "bridge" in options else {"scale": "none"}),
    }
    return OPRDConfig(**{**defaults, **options})


def scripted(prompt_ids: list[int]) -> list[int]:
    """A rollout that depends on the prompt alone, of 0 to 9 tokens, most ending in EOS."""
    generator = torch.Generator().manual_seed(sum(prompt_ids))
    length = int(torch.randint(1, 10, (), generator=generator))
    ids = torch.randint(0, 256, (length,), generator=generator).tolist()
    return [*ids[:-1], tiny.EOS] if length % 4 else ids


def trainer(
    folder: Path,
    student: Any = None,
    teacher: Any = None,
    rollout=scripted,
    prompts: list[Any] = PROMPTS,
    peft_config: Any = None,
    eval_prompts: list[Any] | None = None,
    tokenizer: Any = None,
    kind: type[OPRDTrainer] = OPRDTrainer,
    columns: dict[str, list[Any]] | None = None,
    reference_model: Any = None,
    reads_with: Any = None,
    **options: Any,
) -> OPRDTrainer:
    """A trainer whose rollouts come from `rollout`, or from the student where that is None.

    `columns` stand beside the prompts, and `args_reference` is the setting `reference_model`.
    """
    if "args_reference" in options:
        options["reference_model"] = options.pop("args_reference")
    by_path = options.get("teacher_source", "path") == "path" and not options.get("teachers")
    teacher = tiny.model(seed=2) if teacher is None and by_path else teacher
    made = kind(
        model=tiny.model(seed=1) if student is None else student,
        teacher_model=teacher,
        args=settings(folder, **options),
        train_dataset=Dataset.from_dict({"prompt": prompts, **(columns or {})}),
        eval_dataset=eval_prompts and Dataset.from_dict({"prompt": eval_prompts}),
        processing_class=tokenizer or tiny.tokenizer(),
        teacher_processing_class=(
            None if isinstance(teacher, str | None) else reads_with or tiny.tokenizer()
        ),
        peft_config=peft_config,
        reference_model=reference_model,
    )
    if rollout is not None:
        script_rollouts(made, rollout)
    return made


def script_rollouts(made: OPRDTrainer, rollout) -> None:
    """Let `rollout(prompt_ids)` take the place of the engine, below everything that is ours."""
    from trl.trainer.distillation_trainer import DistillationTrainer

    def generate(self, prompt_ids, *args, **kwargs):
        return [rollout(ids) for ids in prompt_ids]

    engine = type("ScriptedEngine", (DistillationTrainer,), {"_generate_single_turn": generate})
    # The scripted engine stands between our trainer and TRL's in the order of resolution.
    made.__class__ = type("ScriptedTrainer", (type(made), engine), {})


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert first.keys() == second.keys()
    return max((first[name] - second[name]).abs().max().item() for name in first)


# Rollouts that the student writes, at a rate at which they soon differ.
WRITING = {"rollout": None, "learning_rate": 1e-2, "optim": "adamw_torch"}


def check_goes_on_bit_identical(folder: Path, **options: Any) -> None:
    """Hold a run that is resumed half way to one that was not interrupted."""

    def run(name: str, resume: Path | None = None) -> dict[str, torch.Tensor]:
        saving = {"save_strategy": "steps", "save_steps": 4, "max_steps": 8}
        made = trainer(folder / name, **{**WRITING, **saving, **options})
        made.train(resume_from_checkpoint=None if resume is None else str(resume))
        return weights(made.model)

    whole = run("whole")
    resumed = run("resumed", folder / "whole" / "checkpoint-4")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
