"""One optimizer step on scripted rollouts; run in several processes by test_distributed.

    python -m tests.training.distributed_step FOLDER BATCH_SIZE OPTIONS...

Each of OPTIONS makes another student take the step: settings as NAME=VALUE, separated by commas.
"""

import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import nn

from oprd.core.layers import LayerPair
from tests import tiny
from tests.models.built_tokenizers import sentencepiece
from tests.training.runs import PROMPTS, scripted, trainer


def main(folder: str, batch_size: str, *cases: str) -> None:
    results = {options: step(Path(folder), int(batch_size), options) for options in cases}
    if os.environ["RANK"] == "0":
        torch.save(results, Path(folder) / "results.pt")


def step(folder: Path, batch_size: int, options: str) -> dict[str, Any]:
    """The student's weights after the step, and the step's loss."""
    extra = dict(option.split("=") for option in options.split(",") if option)
    untied = extra.pop("untied", None) is not None
    # The last prompts of a batch are those of the last process.
    empty = tuple(PROMPTS[2:4]) if extra.pop("empty", None) else ()
    rank = os.environ.get("RANK", "0")
    named = ("broken", "nan_gradient", "unkept")
    broken, nan_gradient, unkept = (extra.pop(name, None) == rank for name in named)
    student = tiny.model(seed=1, tie_word_embeddings=not untied).double()
    if nan_gradient:
        student.base_model.embed_tokens.weight.register_hook(lambda grad: grad * math.nan)
    depth = int(extra.pop("teacher_layers", 3))
    teacher = None
    if "teacher_source" not in extra:
        teacher = tiny.model(seed=2, num_hidden_layers=depth).double()
    # Drawn by both, and not by a script.
    writes = extra.pop("writes", None) is not None
    reads_with = None
    if extra.get("teacher_tokenizer") == "own":
        reads_with = sentencepiece()
        teacher = tiny.reading(reads_with, seed=2).double()
    hints = [[f"{n}. {p}", f"{p} {p}"][: 1 + n % 2] for n, p in enumerate(PROMPTS)]
    columns = {"teacher_prompts": hints} if extra.pop("hints", None) else None
    if (batches := extra.pop("several", None)) is not None:
        teacher = {"a": teacher, "b": tiny.model(seed=3).double()}
        # The rows of a batch that the first process has are all of one of them.
        route = ["a", "a", "b", "a"] if batches == "mixed" else ["a", "b"]
        columns = {"teacher": route * (len(PROMPTS) // len(route))}
        extra |= {"teachers": '[{"name": "a"}, {"name": "b"}]', "teacher_batches": batches}
    # What an extrapolation goes on from.
    reference = tiny.model(seed=4).double() if "extrapolation" in extra else None
    if broken and isinstance(teacher, nn.Module):
        teacher.base_model.layers[1].mlp.down_proj.weight.data.fill_(float("nan"))
    made = trainer(
        folder,
        student=student,
        teacher=teacher,
        rollout=None if writes else lambda ids: [] if decoded(ids) in empty else scripted(ids),
        per_device_train_batch_size=batch_size,
        position_k=3,
        max_grad_norm=0.0,
        shuffle_dataset=False,
        columns=columns,
        reference_model=reference,
        reads_with=reads_with,
        **{name: yaml.safe_load(value) for name, value in extra.items()},
    )
    if unkept:
        made._finite._batch = unwritable
    made.train()
    _check_pairs(made.pairs)
    weights = made.accelerator.get_state_dict(made.model_wrapped)
    return {"weights": weights, "loss": made.state.log_history[0]["loss"]}


def decoded(ids: list[int]) -> str:
    return tiny.tokenizer().decode(ids)


def unwritable(*_: Any) -> Any:
    """A batch of which no file can be made."""
    raise SafetensorError("cannot be written")


def _check_pairs(pairs: Sequence[LayerPair]) -> None:
    """Every process compares the same layers."""
    found = gather_object([[tuple(pair) for pair in pairs]])
    assert all(own == found[0] for own in found)


if __name__ == "__main__":
    main(*sys.argv[1:])
