"""Seeded runs whose losses and weights must not change with the code's structure.

    python -m tests.golden.runs FILE

writes what they give here to a file, `tests/golden/expected.json` for the test beside it.
"""

import hashlib
import json
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model

from oprd import OPRDTrainer
from tests import tiny
from tests.processes import TwoProcesses
from tests.training.runs import LORA, trainer

FILE = Path(__file__).with_name("expected.json")
UNIT = {"scale": "unit", "representation_weight": 1.0}
OUTPUT = {"representation_weight": 0.0}
# A teacher of another width and depth, for a bridge.
LARGE = {"hidden_size": 48, "num_attention_heads": 6, "num_hidden_layers": 4}

CASES: dict[str, dict[str, Any]] = {
    "oprd": {},
    "unit length, last positions": {**UNIT, "positions": "last_k", "position_k": 3},
    "scaled by layer": {"scale": "layer"},
    "own rollouts, over tokens": {"rollout": None, "reduction": "token"},
    "accumulated": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
    "checkpointed": {"gradient_checkpointing": True},
    "bridge": {
        **UNIT,
        "bridge": "fit",
        "bridge_rank": 4,
        "teacher": LARGE,
        "layers": "even",
    },
    "sampled": {**OUTPUT, "output_loss": "sampled"},
    "topk": {"output_loss": "topk", "output_loss_kwargs": {"k": 4}},
    "topk, truncated": {
        **OUTPUT,
        "output_loss": "topk",
        "output_loss_kwargs": {"k": 4, "support": "union", "renormalize": False},
    },
    "reverse_kl": {**OUTPUT, "output_loss": "reverse_kl", "temperature": 0.7},
    "forward_kl": {**OUTPUT, "output_loss": "forward_kl", "output_weight": 0.3},
    "jsd": {"output_loss": "jsd", "output_loss_kwargs": {"beta": 0.3}, "diagnostics_steps": 2},
    "constant prefix": {"prefix_gradients": False, "positions": "last_k", "position_k": 3},
    "two updates a rollout": {"updates_per_rollout": 2, "max_steps": 4},
    "lora": {"lora": True},
    "stages": {
        "stages": [
            {"steps": 1, "bridge": "fit"},
            {"steps": 2, "representation_weight": 0.0, "output_loss": "reverse_kl"},
        ],
        **UNIT,
        "bridge_rank": 4,
        "teacher": LARGE,
    },
    "gram": {"state_loss": "gram"},
    "skewed_kl": {**OUTPUT, "output_loss": "skewed_kl", "output_loss_kwargs": {"mirror": True}},
}


def observe(case: str, folder: Path) -> dict[str, Any]:
    """Loss of every step, and what identifies the weights after the last one."""
    plain = {"max_steps": 3, "learning_rate": 1e-3, "optim": "adamw_torch", "scale": "none"}
    options = {**plain, **CASES[case]}
    if "teacher" in options:
        options["teacher"] = tiny.model(seed=2, **options["teacher"])
    if options.pop("lora", False):
        options |= _adapters(folder)
    with one_thread():
        torch.manual_seed(0)
        return _trained(trainer(folder / "run", **options))


def observe_all(folder: Path) -> dict[str, Any]:
    """What every case gives, that of two processes included."""
    found = {case: observe(case, folder / str(number)) for number, case in enumerate(CASES)}
    with TwoProcesses() as run:
        return {**found, "two processes": two_processes(folder, run)}


def two_processes(folder: Path, run: TwoProcesses) -> dict[str, Any]:
    """What two processes give that share each step's rollouts."""
    errors = run("golden.runs", "--process", folder)
    assert not any(errors), errors
    return json.loads((folder / "process.json").read_text())


def machine() -> dict[str, str]:
    """What the last bits of a result depend on."""
    return {
        "processor": _processor(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__.partition("+")[0],
        "transformers": transformers.__version__,
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if not facts.is_file():
        return platform.processor()
    wanted = ("model name", "cpu family", "model", "stepping")
    lines = [line.split(":") for line in facts.read_text().split("\n\n")[0].splitlines()]
    found = {line[0].strip(): line[1].strip() for line in lines if len(line) > 1}
    return " ".join(found.get(name, "") for name in wanted)


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums in one order, however many threads the tests run on."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _adapters(folder: Path) -> dict[str, Any]:
    """A student and a teacher that are adapters on one base."""
    base, adapter = folder / "base", folder / "adapter"
    tiny.model(seed=1).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    wrapped = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA))
    generator = torch.Generator().manual_seed(3)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(adapter)
    torch.manual_seed(4)
    return {"student": str(base), "teacher": str(adapter), "peft_config": LoraConfig(**LORA)}


def _trained(made: OPRDTrainer) -> dict[str, Any]:
    """The losses of a run, a hash of all bits that train, and for other machines norms: of each
    tensor, and of what the run changed in it, which is little of the whole."""
    before = _trainable(made.student)
    made.train()
    digest, norms, changes = hashlib.sha256(), [], []
    for name, after in _trainable(made.student).items():
        digest.update(name.encode() + after.numpy().tobytes())
        norms.append(float(after.double().norm()))
        changes.append(float((after.double() - before[name].double()).norm()))
    return {
        "losses": [line["loss"] for line in made.state.log_history if "loss" in line],
        "weights": digest.hexdigest(),
        "norms": norms,
        "changes": changes,
    }


def _trainable(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in sorted(model.named_parameters())
        if parameter.requires_grad
    }


def _process(folder: Path) -> None:
    options: dict[str, Any] = {"max_steps": 3, "per_device_train_batch_size": 2, "scale": "none"}
    made = trainer(folder / "run", learning_rate=1e-3, optim="adamw_torch", **options)
    found = _trained(made)
    if made.accelerator.is_main_process:
        (folder / "process.json").write_text(json.dumps(found))


def _write(file: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = {"machine": machine(), "cases": observe_all(Path(folder))}
    Path(file).write_text(json.dumps(found, indent=1) + "\n")


def main(*arguments: str) -> None:
    match arguments:
        case ["--process", place]:
            _process(Path(place))
        case [place]:
            _write(place)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
