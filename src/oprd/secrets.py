"""Tokens, keys and passwords are left out of whatever a run writes or says.

A secret is known by the name it stands under; by its value, where a secret's name holds it in the
environment or elsewhere in the same settings; and by its place in a URL.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

HIDDEN = "<hidden>"
# A word of a name, as in HF_TOKEN, wandb-api-key, clientSecret, PGPASSWORD.
_NAME = re.compile(
    r"(?:^|[^a-z])(?:auth)?token$|api[_-]?key|access[_-]?key|private[_-]?key|passwo?r?d|passphrase"
    r"|secret|credential"
)
# The names of a vocabulary's own tokens.
_SPECIAL = re.compile(r"(?:pad|eos|bos|unk|sep|cls|mask|image|audio|video|think\w*)_token$")
# What stands before the host, and queries under a secret's name; the name comes first.
_USER = re.compile(r"(?<=://)[^/\s@\"'<>]+(?=@)")
_QUERY = re.compile(r"([?&;]([\w.-]+)=)([^&;#\s\"'<>]+)")
_SIGNED = re.compile(r"sig(?:nature)?$")
# Of a shorter value, words that mean nothing would be masked too.
SHORTEST = 8


def is_secret(name: str) -> bool:
    """Whether what stands under this name is a token, a key or a password."""
    # Words that only a capital letter divides.
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return bool(_NAME.search(words)) and not _SPECIAL.search(words)


def masked(text: str) -> str:
    """Text, JSON for instance, without secrets of the environment and without those in URLs."""
    return _masked(text, _held(os.environ))


def without_secrets(value: Any, *known: Any) -> Any:
    """Settings, or another value as JSON has it, with what is secret masked at any depth.

    Args:
        value: what a secret's name holds anywhere in it is masked wherever else it stands.
        known: further settings, whose secrets are masked here too.
    """
    named = {secret for settings in (value, *known) for secret in _named(settings)}
    return _without(value, _held(os.environ) | named)


def arguments_without_secrets(arguments: Sequence[str]) -> list[str]:
    """A command line with what stands behind a secret's flag masked, in mappings of JSON too."""
    shown: list[str] = []
    hidden = False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            is_here = bool(equals)
            shown.append(f"{flag}{equals}{_argument(value, is_here and is_secret(flag))}")
            hidden = not is_here and is_secret(flag)
        else:
            shown.append(_argument(argument, hidden))
    return shown


def picklable(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as they are, but None in the place of what is secret."""
    plain = without_secrets(settings)
    return {name: None if value == HIDDEN else value for name, value in plain.items()}


def _argument(value: str, hidden: bool) -> str:
    """A value of a command line."""
    if hidden:
        return HIDDEN
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return masked(value)
    plain = without_secrets(parsed)
    # What holds no secret stays as it was written.
    return value if plain == parsed else json.dumps(plain)


def _held(names: Mapping[str, str]) -> set[str]:
    """What secrets' names hold."""
    return {value for name, value in names.items() if is_secret(name) and len(value) >= SHORTEST}


def _named(value: Any) -> Iterator[str]:
    """Likewise at any depth of settings."""
    if isinstance(value, Mapping):
        yield from _held({str(k): v for k, v in value.items() if isinstance(v, str)})
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for inner in value:
        yield from _named(inner)


def _without(value: Any, secrets: set[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            _without(name, secrets): (
                HIDDEN if inner and is_secret(str(name)) else _without(inner, secrets)
            )
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        inside = [_without(inner, secrets) for inner in value]
        return inside if isinstance(value, list) else tuple(inside)
    return _masked(value, secrets) if isinstance(value, str) else value


def _masked(text: str, secrets: set[str]) -> str:
    # One may be a part of another.
    for secret in sorted(secrets, key=len, reverse=True):
        # In JSON some characters are written as others.
        text = text.replace(secret, HIDDEN).replace(json.dumps(secret)[1:-1], HIDDEN)
    return _QUERY.sub(_query, _USER.sub(HIDDEN, text))


def _query(found: re.Match[str]) -> str:
    start, name, value = found.groups()
    secret = is_secret(name) or _SIGNED.search(name.lower())
    return start + (HIDDEN if secret else value)
