"""The YAML file of `oprd train --config`, whose values must be of the types of their fields."""

import difflib
from collections.abc import Iterable
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from oprd.values import RENAMED

# Of a file, its anchors written out.
MOST_VALUES = 100_000
WORDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
    NoneType: "null",
}


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


def check_file(path: str, hints: dict[str, Any]) -> None:
    """Refuse fields that are unknown, and values that are not of their field's type.

    Args:
        path: of the file.
        hints: types by field.

    Raises:
        ValueError: the message names file and field.
        OSError: the file cannot be read.
    """
    config = _load_yaml(path)
    _check_anchors(path, config, [], {})
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
    except OSError:
        raise
    except Exception as error:
        # A tag may give text a kind that it is not of, which the loader does not look at.
        raise ValueError(f"{path!r} is not plain YAML: {error}.") from error


def _check_anchors(path: str, value: Any, within: list[int], sizes: dict[int, int]) -> int:
    """How many values stand in a value, written out.

    Raises:
        ValueError: an anchor is a part of itself, or anchors stand for more than anyone writes.
    """
    if id(value) in within:
        raise ValueError(f"{path!r} holds an anchor that refers to itself: write its value out.")
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in sizes:
        parts = value.values() if isinstance(value, dict) else value
        inside = [*within, id(value)]
        sizes[id(value)] = 1 + sum(_check_anchors(path, part, inside, sizes) for part in parts)
    if sizes[id(value)] > MOST_VALUES:
        raise ValueError(f"{path!r} holds anchors that stand for over {MOST_VALUES:,} values.")
    return sizes[id(value)]


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
