"""`oprd train`: arguments in, a trained student in the output directory."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import transformers
import typer
from packaging.version import Version
from trl import ModelConfig, get_peft_config, get_quantization_config

from oprd.cli.arguments import DataArguments, parse
from oprd.cli.errors import setting_up
from oprd.names import locate
from oprd.prompts.load import load_prompts
from oprd.runs.checkpoints import find_checkpoint
from oprd.runs.record import BEST, check_output_dir, read_best
from oprd.training.config import OPRDConfig
from oprd.training.trainer import OPRDTrainer


def run(arguments: Sequence[str]) -> None:
    """Train, and save the student; everything that can be checked is checked before it loads."""
    with setting_up():
        data, args, models = parse(arguments)
        output_dir = check_output_dir(cast(str, args.output_dir))
        checkpoint = find_checkpoint(output_dir, args.resume_from_checkpoint)
        trainer = _trainer(data, args, models)
    is_main = trainer.accelerator.is_main_process
    if is_main:
        _announce(args, checkpoint)
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model(str(output_dir))
    if args.push_to_hub:
        trainer.push_to_hub(dataset_name=data.dataset_name)
    if is_main:
        steps = trainer.state.global_step
        typer.echo(f"Trained {steps} steps: student, run.json and metrics.jsonl in {output_dir}")
        if args.keep_best is not None and (best := read_best(output_dir)) is not None:
            typer.echo(
                f"Best {best['figure']}: {best['value']:.1%} at step {best['step']}, kept in "
                f"{output_dir / BEST}. As the highest of several evaluations it is too high by "
                f"chance; a fresh one of this student: {args.fresh_evaluation}"
            )
    if Version(transformers.__version__) >= Version("5.18"):
        trainer.end()


def _trainer(data: DataArguments, args: OPRDConfig, models: ModelConfig) -> OPRDTrainer:
    student = _require(models.model_name_or_path, "model_name_or_path", "the student")
    teacher = _require(args.teacher_model_name_or_path, "teacher_model_name_or_path", "the teacher")
    dataset = _require(data.dataset_name, "dataset_name", "the prompts")
    for name, what in ((student, "student"), (teacher, "teacher")):
        locate(name, what)

    def prompts(split: str) -> Any:
        return load_prompts(
            dataset,
            split=split,
            bad_rows=data.bad_rows,
            config_name=data.dataset_config,
            max_prompts=data.max_prompts,
            seed=args.seed if args.data_seed is None else args.data_seed,
        )

    train_dataset = prompts(data.dataset_train_split)
    eval_dataset = prompts(data.dataset_test_split) if args.eval_strategy != "no" else None
    _set_load_options(args, models)
    return OPRDTrainer(
        model=student,
        teacher_model=teacher,
        args=args,
        train_dataset=train_dataset,
        eval_dataset=eval_dataset,
        quantization_config=get_quantization_config(models),
        peft_config=get_peft_config(models),
    )


def _set_load_options(args: OPRDConfig, models: ModelConfig) -> None:
    """Precision and attention for both models; trust in custom code for the student alone.

    A teacher's custom code runs only where `teacher_model_init_kwargs` says so.
    """
    shared = {"dtype": models.dtype, "attn_implementation": models.attn_implementation}
    student = cast(dict[str, Any] | None, args.model_init_kwargs) or {}
    teacher = cast(dict[str, Any] | None, args.teacher_model_init_kwargs) or {}
    args.model_init_kwargs = {**shared, "revision": models.model_revision, **student}
    args.teacher_model_init_kwargs = {**shared, "trust_remote_code": False, **teacher}


def _require(value: str | None, field: str, what: str) -> str:
    if value is None:
        raise ValueError(f"{what} is missing: set --{field}, or {field} in the config file.")
    return value


def _announce(args: OPRDConfig, checkpoint: str | None) -> None:
    if not torch.accelerator.is_available() and not args.bf16:
        typer.echo(f"No GPU: training in float32 on {torch.get_num_threads()} CPU threads.")
    if checkpoint is not None:
        typer.echo(f"Resuming from {checkpoint}.")
