"""What `oprd train` takes: TRL's parser and field names, with values of a YAML file checked."""

import argparse
import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, NoReturn, get_args, get_origin, get_type_hints

from trl import DistillationConfig, ModelConfig, TrlParser

from oprd.cli.config_file import check_file, unknown_field
from oprd.prompts.examples import PROMPT_COLUMNS
from oprd.runs.limits import LIMITS, check_limits
from oprd.settings.objective import ObjectiveConfig
from oprd.settings.rollouts import RolloutConfig
from oprd.settings.run import AUTO, OPRDConfig
from oprd.settings.tasks import TaskEvaluationConfig
from oprd.settings.teachers import TeacherConfig
from oprd.values import parse_mapping

# Mappings that may be the path of a JSON file as well.
FILES = ("accelerator_config", "fsdp_config", "deepspeed")
# Numbers, or mappings of how they change.
WEIGHTS = ("representation_weight", "output_weight")
# The configuration reads numbers and lists too; the command line needs one type, text.
WIDER = {
    "layers": str | int | list[int],
    "learning_rate": float | Literal["auto"],
    **dict.fromkeys(WEIGHTS, float | dict[str, Any]),
    # YAML takes an unquoted 1:1 for a number, which the configuration explains.
    "layer_pairing": str | int,
    "eval_tasks": str | list[str] | None,
    "allow_changed": str | list[str] | None,
    "resume_from_checkpoint": str | bool | None,
}
# What takes several values, between commas or one after another.
SEVERAL = ("layers", "report_to", "eval_tasks", "allow_changed")
# What files of fields are called.
YAML = (".yaml", ".yml")
# What one name is a list of, where it is text of this form: a pattern or `all-linear` is not.
LISTS = (
    "lora_target_modules",
    "lora_target_parameters",
    "lora_modules_to_save",
    "optim_target_modules",
)
NAMES = re.compile(r"[\w.]+(\s*,\s*[\w.]+)*")
HELP = {
    "resume_from_checkpoint": "Where to go on: auto or true for the newest complete checkpoint in "
    "output_dir, if there is one; the path of a checkpoint; false, the default, to start anew.",
    "report_to": "Trackers, such as tensorboard or wandb trackio; none, or all that are installed.",
}


@dataclass
class DataArguments:
    """Where the prompts come from, under TRL's names where TRL has them."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "Prompts: a parquet, JSONL, JSON or CSV file, a folder saved by datasets, a "
            "task such as additions, or a dataset on the hub."
        },
    )
    dataset_config: str | None = field(
        default=None, metadata={"help": "Configuration of a dataset on the hub."}
    )
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on."})
    dataset_test_split: str = field(
        default="test", metadata={"help": "Split for evaluation, read if eval_strategy is set."}
    )
    bad_rows: Literal["error", "skip"] = field(
        default="error",
        metadata={"help": "Stop at the first bad row, or skip bad rows and count them."},
    )
    max_prompts: int | None = field(
        default=None, metadata={"help": "Use only so many prompts; for a task, make so many."}
    )
    prompt_column: str | None = field(
        default=None,
        metadata={"help": f"Where the prompts are, if not in {', '.join(PROMPT_COLUMNS)}."},
    )
    eval_split: float | None = field(
        default=None,
        metadata={
            "help": "Hold this share of the training prompts out for eval_strategy, such as 0.05, "
            "in the place of dataset_test_split."
        },
    )

    def __post_init__(self) -> None:
        """Refuse a share that leaves nothing on one side."""
        share = self.eval_split
        if share is not None and not (isinstance(share, float) and 0 < share < 1):
            raise ValueError(f"eval_split must be above 0 and below 1, got {share!r}.")


@dataclass
class CommandArguments:
    """What the command does beside training."""

    preview: bool = field(
        default=False,
        metadata={
            "help": "Show the settings that are no defaults and the first rollouts as both models "
            "read them, and train nothing."
        },
    )


class _Joined(argparse._StoreAction):
    """Several values as one text, with commas."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        setattr(namespace, self.dest, ",".join(values))


def _rate(text: str) -> float | str:
    try:
        return text if text == AUTO else float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a number or {AUTO}, got {text!r}") from error


class TrainParser(TrlParser):
    """TRL's parser, with one-sentence errors and its many fields grouped by where they belong."""

    def __init__(self) -> None:
        types: Any = (DataArguments, OPRDConfig, ModelConfig, CommandArguments)
        # Abbreviations would let a misspelt field pass for another.
        super().__init__(types, prog="oprd train", allow_abbrev=False)
        for action in self._actions:
            action.help = HELP.get(action.dest, action.help)
            if action.dest in SEVERAL:
                action.nargs, action.__class__ = "+", _Joined
            if action.dest == "learning_rate":
                action.type = _rate
            if action.dest in WEIGHTS:
                # What is no number or mapping, the configuration refuses by name.
                action.type = str

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage of some two hundred fields."""
        raise ValueError(message)

    def format_help(self) -> str:
        """All fields, those of the method first."""
        formatter = self._get_formatter()
        formatter.add_usage(
            "oprd train [--config FILE.yaml] [--FIELD VALUE ...]", [], [], "Usage: "
        )
        formatter.add_text("The command line wins over the file. Fields in a file have no dashes.")
        left = list(self._actions)
        for title, owner in (
            ("Representation distillation", OPRDConfig),
            ("Objective, bridge and stages", ObjectiveConfig),
            ("What the teacher reads", TeacherConfig),
            ("How rollouts are written", RolloutConfig),
            ("Evaluation on tasks while training", TaskEvaluationConfig),
            ("Data", DataArguments),
            ("Command", CommandArguments),
            ("Models", ModelConfig),
            ("On-policy distillation (TRL)", DistillationConfig),
            ("Training (Transformers)", None),
        ):
            own = [a for a in left if owner is None or a.dest in owner.__annotations__]
            left = [a for a in left if a not in own]
            formatter.start_section(title)
            formatter.add_arguments(own)
            formatter.end_section()
        return formatter.format_help()


class Given(NamedTuple):
    """What a command line and its file say, by whom it is for."""

    data: DataArguments
    training: OPRDConfig
    models: ModelConfig
    command: CommandArguments


def parse(arguments: Sequence[str]) -> Given:
    """Parse a command line, and the YAML file that it names.

    Raises:
        ValueError: a field is unknown (the closest known one is named), or a value is illegal.
        OSError: the file cannot be read.
    """
    parser = TrainParser()
    hints = _field_types(parser.dataclass_types)
    arguments = _split_config(arguments)
    if "--config" in arguments:
        check_file(arguments[arguments.index("--config") + 1], hints)
    given, unknown = parser.parse_known_args(_without_config(arguments))
    for name in unknown:
        if name.startswith("--"):
            raise ValueError(unknown_field(name.split("=")[0], hints, "--"))
    if unknown:
        raise ValueError(_left_over(unknown[0], arguments))
    # The parser's own error would not say which one is wrong.
    for name in _mappings(hints):
        value = getattr(given, name)
        if name in WEIGHTS:
            continue
        if name not in FILES or str(value).lstrip().startswith("{"):
            parse_mapping(name, value)
    try:
        data, training, model, command = parser.parse_args_and_config(arguments)
    # What libraries raise at a value that they did not expect.
    except (TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise ValueError(f"a setting has a value of the wrong kind: {error}") from error
    for name in LISTS:
        owner = model if hasattr(model, name) else training
        value = getattr(owner, name)
        # TRL makes one name of a list of one, and what takes it reads that as a pattern.
        if isinstance(value, str) and NAMES.fullmatch(value):
            setattr(owner, name, [part.strip() for part in value.split(",")])
    check_limits(vars(model), LIMITS)
    return Given(data, training, model, command)


def _field_types(types: Iterable[Any]) -> dict[str, Any]:
    hints: dict[str, Any] = {}
    for cls in types:
        names = {f.name for f in dataclasses.fields(cls) if f.init}
        hints |= {name: hint for name, hint in get_type_hints(cls).items() if name in names}
    return hints | WIDER


def _mappings(hints: dict[str, Any]) -> list[str]:
    """The fields that hold a mapping, which a command line gives as JSON."""
    return [
        name
        for name, hint in hints.items()
        if any((get_origin(option) or option) is dict for option in get_args(hint))
    ]


def _without_config(arguments: Sequence[str]) -> list[str]:
    """Arguments without a file's name, which would be taken for a value of what precedes it."""
    place = [*arguments, "--config"].index("--config")
    return [*arguments[:place], *arguments[place + 2 :]]


def _left_over(word: str, arguments: Sequence[str]) -> str:
    """Says that a word belongs to no field, and what may have been meant."""
    if word.lower().endswith(YAML) and "--config" not in arguments:
        return f"{word!r} belongs to no field: did you mean --config {word}?"
    return f"{word!r} belongs to no field: a field is given as --FIELD VALUE, with two dashes."


def _split_config(arguments: Sequence[str]) -> list[str]:
    """`--config=FILE` as two arguments, the only form that TRL looks for."""
    split: list[str] = []
    for argument in arguments:
        is_config = argument.startswith("--config=")
        split += ["--config", argument.removeprefix("--config=")] if is_config else [argument]
    if split.count("--config") > 1:
        raise ValueError("--config is given more than once.")
    if split[-1:] == ["--config"]:
        raise ValueError("--config needs the name of a YAML file.")
    return split
