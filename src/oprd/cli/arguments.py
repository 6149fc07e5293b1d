"""What `oprd train` takes: TRL's parser and field names, with values of a YAML file checked."""

import argparse
import dataclasses
import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml
from trl import DistillationConfig, ModelConfig, TrlParser

from oprd.prompts.examples import PROMPT_COLUMNS
from oprd.runs.limits import LIMITS, check_limits
from oprd.settings.objective import ObjectiveConfig
from oprd.settings.run import AUTO, OPRDConfig
from oprd.settings.tasks import TaskEvaluationConfig
from oprd.values import RENAMED, parse_mapping

WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
    NoneType: "null",
}
# Mappings that may be the path of a JSON file as well.
FILES = ("accelerator_config", "fsdp_config", "deepspeed")
# The configuration reads numbers and lists too; the command line needs one type, text.
WIDER = {
    "layers": str | int | list[int],
    "learning_rate": float | Literal["auto"],
    # YAML takes an unquoted 1:1 for a number, which the configuration explains.
    "layer_pairing": str | int,
    "eval_tasks": str | list[str] | None,
    "resume_from_checkpoint": str | bool | None,
}
# What takes several values, between commas or one after another.
SEVERAL = ("layers", "report_to", "eval_tasks")
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
        _check_file(arguments[arguments.index("--config") + 1], hints)
    flags = [a for a in arguments if a != "--config"]
    given, unknown = parser.parse_known_args(flags)
    for name in unknown:
        if name.startswith("--"):
            raise ValueError(unknown_field(name.split("=")[0], hints, "--"))
    # The parser's own error would not say which one is wrong.
    for name in _mappings(hints):
        value = getattr(given, name)
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


def unknown_field(name: str, known: Iterable[str], dashes: str = "") -> str:
    """Says that a field does not exist, and which one may have been meant."""
    bare = name.removeprefix("--").replace("-", "_")
    if bare in RENAMED:
        return f"{dashes}{bare} has become {RENAMED[bare]}"
    known = list(known)
    # `model` and `dataset` are short for a name, which is far away by letters.
    close = [field for field in known if field.startswith(f"{bare}_name")]
    close += difflib.get_close_matches(bare, known, n=1)
    hint = f"did you mean {dashes}{close[0]}?" if close else "oprd train --help lists all."
    return f"unknown field {name!r}: {hint}"


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


def _check_file(path: str, hints: dict[str, Any]) -> None:
    config = _load_yaml(path)
    _refuse_circles(path, config, [])
    if not isinstance(config, dict):
        raise ValueError(f"{path!r} must hold fields with values, one `field: value` a line.")
    for name, value in config.items():
        # TRL sets these in the environment.
        if name == "env":
            hint: Any = dict
        elif name in hints:
            hint = hints[name]
        else:
            raise ValueError(f"{path!r}: {unknown_field(str(name), hints)}")
        _check_value(f"{path!r}: {name}", value, hint)


def _load_yaml(path: str) -> Any:
    try:
        with open(path, encoding="utf-8") as file:
            return yaml.safe_load(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no config file {path!r}.") from error
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{path!r} is not plain YAML{line}: {error.problem}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path!r} is not plain YAML: {error}.") from error


def _refuse_circles(path: str, value: Any, within: list[int], seen: set[int] | None = None) -> None:
    """Refuse, with a ValueError, an anchor that is a part of itself: nothing takes such a value."""
    seen = set() if seen is None else seen
    if id(value) in within:
        raise ValueError(f"{path!r} holds an anchor that refers to itself: write its value out.")
    if isinstance(value, dict | list) and id(value) not in seen:
        seen.add(id(value))
        for part in value.values() if isinstance(value, dict) else value:
            _refuse_circles(path, part, [*within, id(value)], seen)


def _check_value(where: str, value: Any, hint: Any) -> None:
    choices = get_args(hint) if get_origin(hint) is Literal else ()
    if choices and value not in choices:
        raise ValueError(f"{where} must be one of {', '.join(choices)}, got {value!r}.")
    # The parser turns text into a field's type, or says that it cannot.
    if (isinstance(value, str) and hint is not dict) or _fits(value, hint):
        return
    unquoted = isinstance(value, bool) and _fits("", hint)
    advice = " (YAML reads an unquoted no, off, yes or on as true or false)" if unquoted else ""
    raise ValueError(f"{where} must be {_describe(hint)}, got {value!r}{advice}.")


def _fits(value: Any, hint: Any) -> bool:
    origin, options = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in options)
    if origin is Literal:
        return value in options
    if origin is list:
        return isinstance(value, list) and all(_fits(item, options[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)


def _describe(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_describe, get_args(hint))))
    if get_origin(hint) is Literal:
        return " or ".join(get_args(hint))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return WORDS[str]
    return WORDS.get(get_origin(hint) or hint, str(hint))
