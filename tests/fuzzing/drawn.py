"""What strangers' files may hold: any JSON, files that were written well and then damaged."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# What a person is told in a sentence (`oprd.cli.errors`); anything else is a bug of ours.
OURS = (ValueError, OSError)
FEW = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Deeper than a parser goes, longer than a number may be, and what is no JSON though Python says so.
ODD = [b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b"NaN", b"1e999", b'"\\ud800"', b"\xff\xfe"]


def json_values() -> st.SearchStrategy[Any]:
    """Whatever JSON can hold, as Python writes it: NaN, infinity and halves of pairs too."""
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text(st.characters(codec=None), max_size=6)
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    )


def altered(content: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object of which some values are others, some are missing, and one is new."""
    names = st.sampled_from(sorted(content))
    return st.builds(
        lambda changed, missing, new: {
            **{k: v for k, v in content.items() if k not in missing},
            **changed,
            **new,
        },
        st.dictionaries(names, json_values(), max_size=2),
        st.sets(names, max_size=1),
        st.dictionaries(st.text(max_size=3), json_values(), max_size=1),
    )


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes of which some have changed, are missing, or have others among them."""
    place = draw(st.integers(0, len(whole)))
    kind = draw(st.sampled_from(["flip", "cut", "insert", "replace", "odd"]))
    if kind == "cut":
        return whole[:place]
    if kind == "flip" and place < len(whole):
        return (
            whole[:place] + bytes([whole[place] ^ draw(st.integers(1, 255))]) + whole[place + 1 :]
        )
    if kind == "odd":
        return whole[:place] + draw(st.sampled_from(ODD)) + whole[place:]
    other = draw(st.binary(max_size=12))
    return whole[:place] + other + whole[place + (len(other) if kind == "replace" else 0) :]


def write_json(path: Path, content: Any) -> Path:
    """As a program writes it that takes anything."""
    path.write_text(json.dumps(content), encoding="utf-8", errors="surrogatepass")
    return path
