"""What a run shows and what it leaves behind."""

import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from transformers import (
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from oprd.version import __version__

# Names under which libraries take secrets.
SECRETS = ("token", "hub_token", "push_to_hub_token", "use_auth_token", "api_key", "password")
PACKAGES = ("torch", "transformers", "trl", "accelerate", "datasets", "safetensors", "peft", "vllm")


class TrainingProgress(ProgressCallback):
    """A progress bar with loss, cosine and remaining time; the other metrics go to files."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Show the last logged loss and cosine."""
        shown = {"loss": "loss", "rep_cosine": "cosine"}
        values = {label: f"{logs[key]:.4g}" for key, label in shown.items() if logs and key in logs}
        if self.training_bar is not None and values:
            self.training_bar.set_postfix(values)


class RunRecorder(TrainerCallback):
    """Writes `run.json` (settings and versions) and `metrics.jsonl` into the run folder."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self._facts = facts

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the settings; a resumed run drops the metrics after its checkpoint."""
        if not state.is_world_process_zero:
            return
        folder = Path(self._output_dir(args))
        folder.mkdir(parents=True, exist_ok=True)
        settings = without_secrets(args.to_dict())
        record = {**self._facts, "versions": versions(), "settings": settings}
        if state.global_step > 0:
            _check_same_run(folder / "run.json", record)
        _replace(folder / "run.json", json.dumps(record, indent=2, default=str) + "\n")
        metrics = folder / "metrics.jsonl"
        kept = []
        if state.global_step > 0 and metrics.exists():
            kept = [line for line in read_lines(metrics) if line["step"] <= state.global_step]
        _replace(metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Append what was logged."""
        if state.is_world_process_zero and logs:
            with (Path(self._output_dir(args)) / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")

    @staticmethod
    def _output_dir(args: TrainingArguments) -> str:
        assert args.output_dir is not None
        return args.output_dir


def _check_same_run(file: Path, record: dict[str, Any]) -> None:
    """Refuse, with a ValueError, to go on towards something else than a run began with."""
    if not file.is_file():
        return
    begun = json.loads(file.read_text())
    parts = [(begun, record, name) for name in ("teacher", "layer_pairs", "bridge_hashes")]
    settings = begun.get("settings", {}), record["settings"]
    parts += [(*settings, name) for name in ("positions", "position_k", "updates_per_rollout")]
    for before, now, name in parts:
        if name in before and before[name] != now.get(name):
            raise ValueError(
                f"the run in {str(file.parent)!r} began with {name}={before[name]!r}, and is to go "
                f"on with {now.get(name)!r}: choose another output_dir, or the same {name}."
            )


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of what it is built on, where installed."""
    found = {"python": platform.python_version(), "oprd": __version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def without_secrets(settings: Any) -> Any:
    """Settings with the values of tokens and keys masked, at any depth."""
    if isinstance(settings, dict):
        return {
            name: "<hidden>" if name in SECRETS and value else without_secrets(value)
            for name, value in settings.items()
        }
    if isinstance(settings, list | tuple):
        return [without_secrets(value) for value in settings]
    return settings


def read_lines(metrics: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; one that a crash cut off is left out."""
    found = []
    for line in metrics.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def _replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
