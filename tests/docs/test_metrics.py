"""The page on metrics has every figure that runs log, and none that they do not."""

import re
from pathlib import Path
from typing import Any

import pytest

from oprd.runs.metrics import read_metrics
from tests import tiny
from tests.models.built_tokenizers import byte_level
from tests.training import runs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "metrics.md").read_text()
ROUTED = [("sums", "words")[number % 2] for number in range(len(runs.PROMPTS))]
GRADED = """
from oprd.evaluation.grading import Grade
prompts = [{"prompt": "What is 1 + 1?", "answer": "2"}]
def grade(text, gold):
    return Grade.of(False, text)
"""
THEIRS = byte_level()
RUNS: dict[str, dict[str, Any]] = {
    "plain": {},
    "both terms, twice": {
        "max_steps": 2,
        "updates_per_rollout": 2,
        "diagnostics_steps": 1,
        "output_loss": "reverse_kl",
        "representation_weight": {"from": 1, "to": 0, "steps": 2},
    },
    "stages": {"max_steps": -1, "stages": [{"steps": 1}, {"steps": 1}]},
    "teachers": {
        "teachers": [{"name": "sums", "source": "copy"}, {"name": "words", "source": "copy"}],
        "teacher_batches": "mixed",
        "columns": {"teacher": ROUTED},
    },
    "own tokens": {
        "teacher": tiny.model(
            seed=2, vocab_size=len(THEIRS), eos_token_id=THEIRS.eos_token_id, pad_token_id=None
        ),
        "teacher_tokenizer": "own",
        "reads_with": THEIRS,
        "state_loss": "gram",
    },
    "a teacher that begins": {"teacher_prefix": 0.5, "rollout": None},
    "replay": {"replay": 4, "max_steps": 2},
    "curriculum": {"curriculum": "error"},
    "evaluated": {"eval_strategy": "steps", "eval_steps": 1, "eval_prompts": runs.PROMPTS[:4]},
    "a task": {
        "eval_tasks": "graded.py",
        "eval_samples": 4,
        # Enough for the four words that a figure needs.
        "eval_max_new_tokens": 96,
        "eval_steps": 1,
        "rollout": None,
    },
}


def shown() -> set[str]:
    rows = [row.split("|") for row in PAGE.splitlines() if row.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`([\w/@]+)`", row[1])}
    (own,) = (row[2] for row in rows if "`eval_NAME`" in row[1])
    return names | set(re.findall(r"`(eval_(?!dataset|strategy)\w+)`", own))


def general(name: str) -> str:
    """A metric as the page calls it."""
    name = re.sub(r"layer_\d+", "layer_NN", name)
    name = re.sub(r"^teacher/\w+/", "teacher/NAME/", name)
    name = re.sub(r"^eval/\w+/", "eval/TASK/", name)
    name = re.sub(r"pass@\d+", "pass@K", re.sub(r"(avg|best|maj)@\d+", r"\1@N", name))
    return "eval_NAME" if name.startswith("eval_") and name not in shown() else name


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> set[str]:
    found: set[str] = set()
    for options in RUNS.values():
        folder = tmp_path_factory.mktemp("runs")
        with pytest.MonkeyPatch.context() as patched:
            patched.chdir(folder)
            Path("graded.py").write_text(GRADED)
            runs.trainer(folder / "run", **options).train()
        found |= {name for line in read_metrics(folder / "run") for name in line}
    return found


def test_every_metric_that_runs_log_has_a_row_and_no_other(logged):
    assert {general(name) for name in logged} == shown()


def test_on_an_evaluation_dataset_the_figures_are_those_of_a_step(logged):
    others = {name.removeprefix("eval_") for name in logged if general(name) == "eval_NAME"}
    assert others and others <= logged
