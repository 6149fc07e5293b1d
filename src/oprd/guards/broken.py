"""The batch of which something was not finite, in a file, to be looked at again.

Letters: B sequences, P prompt tokens, K response tokens.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from oprd.runs.atomic import written_whole
from oprd.text import parse_json

# Within a run folder, by step; beside the files, one a process, stands the student that met them.
BROKEN, STUDENT = "broken", "student"
SUFFIX = ".safetensors"
# Settings without which the loss of a batch is another one.
OBJECTIVE = (
    "positions",
    "position_k",
    "scale",
    "reduction",
    "representation_weight",
    "state_loss",
    "state_loss_kwargs",
    "output_loss",
    "output_loss_kwargs",
    "output_weight",
    "bridge",
    "prefix_gradients",
    "temperature",
    "extrapolation",
    "extrapolation_power",
)


def objective_at(settings: Any, step: int) -> dict[str, Any]:
    """`OBJECTIVE` of settings at a step of their stage, whose weights are numbers then."""
    found = {name: getattr(settings, name) for name in OBJECTIVE}
    found["representation_weight"], output = (weight.at(step) for weight in settings.weights)
    if output > 0:
        return found | {"output_weight": output}
    return found | {"output_loss": "none", "output_loss_kwargs": None, "output_weight": 1.0}


@dataclass(frozen=True)
class BrokenBatch:
    """What a process trained on in a step that was not finite.

    Attributes:
        inputs: the micro-batches as the trainer has them: token ids and masks, [B, P] and [B, K].
        step: from 1.
        rank: of the process.
        said: what was not finite.
        settings: of the objective, see `OBJECTIVE`.
        pairs: the layers that met; of several teachers those of the first.
        mean_squares: of the teacher's states by student layer, by the bridge's name.
        teachers: of several teachers, the layers that met by name, in their order.
        precision: of autocast: "no", "bf16" or "fp16".
    """

    inputs: Sequence[Mapping[str, Tensor]]
    step: int
    rank: int
    said: str
    settings: Mapping[str, Any]
    pairs: Sequence[tuple[int, int]]
    mean_squares: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    precision: str = "no"
    teachers: Mapping[str, Sequence[tuple[int, int]]] = field(default_factory=dict)

    def save(self, folder: Path) -> Path:
        """Write it into a step's folder; what is no tensor among the inputs is left out."""
        tensors = {
            f"{number}/{name}": value.detach().cpu().contiguous().clone()
            for number, inputs in enumerate(self.inputs)
            for name, value in inputs.items()
            if isinstance(value, Tensor)
        }
        names = [part.name for part in fields(self) if part.name != "inputs"]
        facts = json.dumps({name: getattr(self, name) for name in names})
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rank-{self.rank}{SUFFIX}"
        with written_whole(path) as file:
            save_file(tensors, file, {"batch": facts})
        return path

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read one.

        Raises:
            ValueError: the file is no such batch, or damaged.
        """
        inputs: dict[int, dict[str, Tensor]] = {}
        try:
            with safe_open(path, "pt") as file:
                facts = parse_json((file.metadata() or {})["batch"])
                for key in file.keys():  # noqa: SIM118 # no mapping
                    number, _, name = key.partition("/")
                    inputs.setdefault(int(number), {})[name] = file.get_tensor(key)
            facts["mean_squares"] = {
                bridge: {int(layer): value for layer, value in found.items()}
                for bridge, found in facts["mean_squares"].items()
            }
            return cls(inputs=[inputs[number] for number in sorted(inputs)], **facts)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is no batch that a run kept, or damaged: {error}") from error


def batch_files(place: Path) -> list[Path]:
    """The batches of a step's folder, or the one file.

    Raises:
        FileNotFoundError: there is none.
    """
    found = sorted(place.glob(f"*{SUFFIX}")) if place.is_dir() else [place]
    if not found or not found[0].is_file():
        raise FileNotFoundError(
            f"{str(place)!r} holds no batch that a run kept: give the folder that it named, such "
            f"as RUN/{BROKEN}/step-000007."
        )
    return found


def same_device(inputs: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A micro-batch where a model is."""
    return {name: value.to(device) for name, value in inputs.items()}
