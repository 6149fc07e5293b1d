"""`oprd train`: arguments in, a trained student in the output directory."""

import json
import shlex
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, cast

import torch
import transformers
import typer
from datasets import Dataset
from packaging.version import Version
from tqdm.contrib.logging import logging_redirect_tqdm
from transformers import AutoProcessor, PreTrainedTokenizerBase
from trl import ModelConfig, get_peft_config, get_quantization_config

from oprd.analysis.peak import estimate_run
from oprd.calibration.processes import run_locked
from oprd.cli.arguments import DataArguments, parse
from oprd.cli.errors import setting_up, writing
from oprd.cli.preview import asked, show_rollouts, show_settings
from oprd.core.layers import measures
from oprd.extras import check_installed
from oprd.guards.saving import resumed_from
from oprd.hub import only_cached
from oprd.models.load import ELSEWHERE, find_model
from oprd.models.memory import free_bytes, not_known, told
from oprd.models.prompt import template_check
from oprd.names import locate
from oprd.prompts.form import check_form
from oprd.prompts.load import load_prompts
from oprd.runs.record import ASKED, BEST, check_output_dir, read_best
from oprd.secrets import HIDDEN, arguments_without_secrets, without_secrets
from oprd.settings.given import no_defaults
from oprd.settings.run import OPRDConfig
from oprd.settings.serving import SERVER
from oprd.training.callbacks import warn_of_earlier_run
from oprd.training.teachers.source import TeacherSource, teacher_tokenizer
from oprd.training.trainer import OPRDTrainer

RESUME, OVERWRITE = "--resume_from_checkpoint", "--overwrite"
WAY_ON = f"Then go on from the newest complete checkpoint with {RESUME} auto."


def run(arguments: Sequence[str]) -> None:
    """Train, and save the student; everything that can be checked is checked before it loads."""
    with setting_up():
        data, args, models, command = parse(arguments)
        output_dir = check_output_dir(cast(str, args.output_dir))
    if command.preview:
        _preview(data, args, models)
        return
    with ExitStack() as locked:
        with setting_up():
            locked.enter_context(run_locked(output_dir))
            checkpoint = resumed_from(args)
            if checkpoint is None and not args.overwrite:
                warn_of_earlier_run(output_dir)
            # Before there is a trainer, whose settings have a device of their own.
            asked_for = _asked_for(data, args, models)
            trainer = _trainer(data, args, models)
            trainer.record({ASKED: asked_for})
        _train(arguments, trainer, output_dir, checkpoint)


def _asked_for(data: DataArguments, args: OPRDConfig, models: ModelConfig) -> dict[str, Any]:
    """What is no default, as it was given, and no secret."""
    found = {**no_defaults(data), **no_defaults(models), **args.given.values(args)}
    # The parser gives null for some defaults of its own.
    settled = asked(args, data, models)
    found = {name: value for name, value in found.items() if value is not None or name in settled}
    plain = without_secrets(json.loads(json.dumps(found, default=str)))
    return {name: value for name, value in plain.items() if value != HIDDEN}


def _preview(data: DataArguments, args: OPRDConfig, models: ModelConfig) -> None:
    with setting_up():
        if args.local_process_index == 0:
            show_settings(args, data, models)
        args.only_looks = True
        if measures(args.layer_pairing):
            args.layer_pairing = "proportional"
        # A run that stands there is in nobody's way: nothing is written.
        checkpoint = resumed_from(args) if args.resume_from_checkpoint else None
        trainer = _trainer(data, args, models)
    if trainer.accelerator.is_main_process:
        _say_machine(args)
        _say_memory(trainer, resumes=checkpoint is not None)
    show_rollouts(trainer, _teachers_own(args))


def _train(
    arguments: Sequence[str], trainer: OPRDTrainer, output_dir: Path, checkpoint: str | None
) -> None:
    args, is_main = trainer.args, trainer.accelerator.is_main_process
    if is_main:
        _announce(args, output_dir, checkpoint)
        _say_memory(trainer, resumes=checkpoint is not None)
    trainer.interruption.way_on = _way_on(arguments, overwrite=args.overwrite)
    with writing(output_dir, WAY_ON), logging_redirect_tqdm():
        trainer.space.check_student()
        trainer.train(resume_from_checkpoint=checkpoint or False)
        trainer.save_model(str(output_dir))
        trainer.create_model_card()
    if args.push_to_hub:
        trainer.push_to_hub()
    if is_main:
        steps = trainer.state.global_step
        typer.echo(
            f"Trained {steps} step{'' if steps == 1 else 's'}: student, run.json and "
            f"metrics.jsonl in {output_dir}, with a model card, README.md"
        )
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
    if args.teacher_source in ("path", SERVER) and not args.teachers:
        _require(args.teacher_model_name_or_path, "teacher_model_name_or_path", "the teacher")
    _require(data.dataset_name, "dataset_name", "the prompts")
    _set_load_options(args, models)
    if models.use_peft:
        check_installed("peft", "peft", "use_peft")
    student = _find(student, "student", args.model_init_kwargs, None)
    found = {name: _find_teacher(name, own) for name, own in args.by_teacher().items()}
    teacher = found if args.teachers else found[""]
    reader = _reader(student, args)
    train_dataset, eval_dataset = _datasets(data, args, reader)
    check_form(train_dataset, reader)
    try:
        return OPRDTrainer(
            model=student,
            teacher_model=teacher,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=reader,
            quantization_config=get_quantization_config(models),
            peft_config=get_peft_config(models),
        )
    except TypeError as error:
        _refuse_load_option(error, args)
        raise


def _refuse_load_option(error: TypeError, args: OPRDConfig) -> None:
    """A model's class is the first to know that it has no such option."""
    for setting in ("model_init_kwargs", "teacher_model_init_kwargs"):
        for name in _options(getattr(args, setting)):
            if f"unexpected keyword argument '{name}'" in str(error):
                raise ValueError(f"{setting}: {error}.") from error


def _teachers_own(args: OPRDConfig) -> PreTrainedTokenizerBase | None:
    """The teacher's tokenizer, if there is one beside it; of several the first one's."""
    own = next(iter(args.by_teacher().values()))
    return teacher_tokenizer(TeacherSource.resolve(None, own), own)


def _find_teacher(name: str, args: OPRDConfig) -> str | None:
    """Where a teacher is; None where it is made of the student."""
    teacher = args.teacher_model_name_or_path
    if teacher is None:
        return None
    options = {"revision": args.teacher_model_revision}
    options |= _options(args.teacher_model_init_kwargs)
    what = f"teacher {name}".rstrip()
    return _find(teacher, what, options, args.teacher_base_model_name_or_path)


def _find(name: str, what: str, options: Any, base: str | None) -> str:
    """A model that is there; where in a folder it stands is for the options of loading to say."""
    options = _options(options)
    if ELSEWHERE & options.keys():
        locate(name, what)
        return name
    return find_model(name, what, options.get("revision"), base)


def _reader(student: str, args: OPRDConfig) -> Any:
    """The student's tokenizer or processor, loaded as TRL does it."""
    try:
        return AutoProcessor.from_pretrained(
            student,
            revision=_options(args.model_init_kwargs).get("revision"),
            truncation_side="left",
            padding_side="left",
            trust_remote_code=args.trust_remote_code,
            local_files_only=only_cached(student),
        )
    except (OSError, ValueError) as error:
        raise OSError(
            f"the tokenizer of the student {student!r} cannot be loaded: {error}"
        ) from error


def _datasets(data: DataArguments, args: OPRDConfig, reader: Any) -> tuple[Dataset, Dataset | None]:
    """Prompts to train on, and those to evaluate on, if that is asked for."""
    is_tokenizer = isinstance(reader, PreTrainedTokenizerBase)
    options = cast(dict[str, Any] | None, args.chat_template_kwargs)
    seed = args.seed if args.data_seed is None else args.data_seed

    def prompts(split: str) -> Dataset:
        return load_prompts(
            cast(str, data.dataset_name),
            split=split,
            bad_rows=data.bad_rows,
            config_name=data.dataset_config,
            max_prompts=data.max_prompts,
            seed=seed,
            prompt_column=data.prompt_column,
            check=template_check(reader, options) if is_tokenizer else None,
            keep=args.teacher_columns,
        )

    evaluates = args.eval_strategy != "no" or args.eval_on_start
    if data.eval_split is not None and not evaluates:
        raise ValueError(
            f"eval_split={data.eval_split} holds prompts out for an evaluation that is not asked "
            "for: set eval_strategy, such as steps, or leave eval_split out."
        )
    train = prompts(data.dataset_train_split)
    if data.eval_split is not None:
        parts = train.train_test_split(data.eval_split, seed=seed)
        return parts["train"], parts["test"]
    return train, prompts(data.dataset_test_split) if evaluates else None


def _set_load_options(args: OPRDConfig, models: ModelConfig) -> None:
    """Precision and attention for both models; trust in custom code for the student alone.

    A teacher's custom code runs only where `teacher_model_init_kwargs` says so.
    """
    shared = {"dtype": models.dtype, "attn_implementation": models.attn_implementation}
    student, teacher = map(_options, (args.model_init_kwargs, args.teacher_model_init_kwargs))
    args.model_init_kwargs = {**shared, "revision": models.model_revision, **student}
    if args.teacher_source == "path":
        args.teacher_model_init_kwargs = {**shared, "trust_remote_code": False, **teacher}


def _options(given: Any) -> dict[str, Any]:
    return dict(cast(dict[str, Any] | None, given) or {})


def _require(value: str | None, field: str, what: str) -> str:
    if value is None:
        raise ValueError(f"{what} is missing: set --{field}, or {field} in the config file.")
    return value


def _say_machine(args: OPRDConfig) -> None:
    if not torch.accelerator.is_available() or args.use_cpu:
        threads = torch.get_num_threads()
        cpu = f"{threads} CPU thread{'' if threads == 1 else 's'}"
        slow = ", which is slow on processors without bfloat16 of their own" if args.bf16 else ""
        typer.echo(f"No GPU: training in {'bfloat16' if args.bf16 else 'float32'} on {cpu}{slow}.")


def _say_memory(trainer: OPRDTrainer, *, resumes: bool = False) -> None:
    try:
        need = estimate_run(trainer, resumes=resumes)
    except Exception as error:  # whatever a model's own code makes of tensors without values
        typer.echo(not_known(error))
        return
    text, fits = told(need, free_bytes(trainer.accelerator.device))
    typer.secho(text, fg=None if fits else typer.colors.YELLOW, err=not fits)


def _announce(args: OPRDConfig, output_dir: Path, checkpoint: str | None) -> None:
    _say_machine(args)
    if checkpoint is not None:
        typer.echo(f"Resuming from {checkpoint}.")
    elif str(args.resume_from_checkpoint).lower() in ("auto", "true"):
        typer.echo(f"No complete checkpoint in {output_dir} yet: starting at the beginning.")


def _way_on(arguments: Sequence[str], *, overwrite: bool) -> str:
    """The command that goes on with a run, and does not begin it anew once more.

    A terminal is often kept as a log, and what was secret is to be given again.
    """
    kept = _without(arguments, RESUME)
    again = _without(kept, OVERWRITE)
    if overwrite and again == kept:
        # The config file says it, over which a flag wins.
        again += [OVERWRITE, "false"]
    return shlex.join(["oprd", "train", *arguments_without_secrets(again), RESUME, "auto"])


def _without(arguments: Sequence[str], flag: str) -> list[str]:
    """Arguments without a flag and its value, which may be left out."""
    kept: list[str] = []
    for place, argument in enumerate(arguments):
        is_value = place > 0 and arguments[place - 1] == flag and not argument.startswith("--")
        if not is_value and argument != flag and not argument.startswith(f"{flag}="):
            kept.append(argument)
    return kept
