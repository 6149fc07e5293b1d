"""Run folders made by hand, for tests that need no model."""

import json
import math
from pathlib import Path
from typing import Any

from oprd.evaluation.records import rewrite_records
from oprd.runs.samples import PositionCurve, Sample, append_samples
from tests.evaluation.samples import header, record

LAYERS = 8
SETTINGS = {
    "layers": "all",
    "positions": "all",
    "state_loss": "mse",
    "representation_weight": 1.0,
    "output_loss": "none",
    "learning_rate": 1e-4,
    "num_train_epochs": 1,
}


def line(step: int, **other: Any) -> dict[str, Any]:
    share = 1 - math.exp(-step / 100)
    return {
        "step": step,
        "loss": 1.5 - share + 0.05 * math.sin(step),
        "grad_norm": 3 - share,
        "learning_rate": 1e-4,
        "rep_cosine": 0.8 + 0.15 * share,
        **{f"rep_cosine/layer_{n:02d}": 0.99 - 0.02 * n + 0.01 * share for n in range(1, LAYERS)},
        "completions/mean_length": 30 + 10 * share,
        "completions/clipped_ratio": 0.1,
        "diagnostics/student_entropy": 2.0 - share,
        "diagnostics/teacher_entropy": 1.0,
        "diagnostics/top16_overlap": 0.5 + 0.3 * share,
        "diagnostics/reverse_kl": 0.3 - 0.2 * share,
        "seconds/rollout": 2.0,
        "seconds/teacher": 0.5,
        "seconds/student": 1.0,
        "tokens_per_second": 400.0,
        "peak_memory_gib": 3.2,
        **other,
    }


def write_metrics(folder: Path, lines: list[dict[str, Any]]) -> None:
    (folder / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))


def write_run(
    folder: Path,
    steps: int = 20,
    *,
    ended: bool = True,
    text: str = "the answer is 5",
    **record: Any,
) -> Path:
    """A run's folder with everything that a report reads, in which strangers' words are `text`."""
    folder.mkdir(parents=True)
    settings = {**SETTINGS, "max_steps": steps, **record.pop("settings", {})}
    facts = {
        "student": "path/to/student",
        "teacher": "path/to/teacher",
        "layer_pairs": [[n, n] for n in range(1, LAYERS)],
        "dataset": "additions",
        "prompts": 100,
        "chat": True,
        "versions": {"oprd": "0"},
        "settings": settings,
    }
    (folder / "run.json").write_text(json.dumps({**facts, **record}))
    lines = [line(step) for step in range(1, steps + 1)]
    for step in (0, steps // 2, steps):
        share = step / steps / 2
        figures = {"avg@4": share, "avg@4_low": max(0, share - 0.1), "avg@4_high": share + 0.1}
        task = {f"eval/{record.get('task', 'additions')}/{n}": v for n, v in figures.items()}
        lines.append({"step": step, **task})
    write_metrics(folder, [*lines, *([{"step": steps, "train_runtime": 75.0}] if ended else [])])
    pieces = [f"{text} {n} " for n in range(40)]
    cosines = [0.99 - 0.01 * (n % 9) if n > 4 else None for n in range(40)]
    for step in (1, steps):
        sample = Sample(
            step, f"prompt: {text}", pieces, [n != 7 for n in range(40)],
            [c is not None for c in cosines], cosines,
        )  # fmt: skip
        curve = PositionCurve(step, list(range(1, 9)), [0.8 + step / steps / 10] * 8, [4] * 8)
        append_samples(folder, [sample] * 2, curve)
    for number, model in enumerate(("teacher", "student before", "student after")):
        file = folder / "samples" / f"{model}.jsonl"
        file.parent.mkdir(exist_ok=True)
        records = [
            record_of(f"{text} {n}", f"{text}, so {n + number}", n % 4 < (3, 1, 2)[number])
            for n in range(24)
        ]
        rewrite_records(file, header(model=model, asked=24, task="additions"), records)
    return folder


def record_of(problem: str, text: str, correct: bool) -> Any:
    return record(problem, 0, correct, text=text)
