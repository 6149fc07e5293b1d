r"""Benchmarks whose answers stand in a `\boxed{}`: competition sets, MATH-500, GSM8K, own files.

Hub revisions are commits, so that a benchmark does not change under a figure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oprd.evaluation.grading import grade, grader_name
from oprd.evaluation.tasks.base import Problem, Task, Template
from oprd.evaluation.tasks.files import BadRows, RawProblem, parse_problems
from oprd.extras import require
from oprd.files import Row, file_hash, read_rows
from oprd.hub import warn_of_waiting
from oprd.models.prompt import Prompt

INSTRUCTION = r"Please reason step by step, and put your final answer within \boxed{}."
# The instruction as it stands in prompts that come with it; the second is a common misprint.
GIVEN_INSTRUCTIONS = (INSTRUCTION, INSTRUCTION.replace("{}", "{{}}"))
TEMPLATE = Template("{problem} " + INSTRUCTION)


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark stands on the hub, and how many problems it must have."""

    hub_id: str
    revision: str
    split: str
    problems: int
    config: str | None = None


BENCHMARKS = {
    "aime24": Benchmark(
        "HuggingFaceH4/aime_2024", "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", "train", 30
    ),
    "aime25": Benchmark("math-ai/aime25", "563bb8404243c5f09de6ec262f2db674fe5bce9b", "test", 30),
    "aimo": Benchmark(
        "AI-MO/aimo-validation-amc", "69d78a4a2c840e82d69af6bc742bda09005f6316", "train", 83
    ),
    "amc23": Benchmark("math-ai/amc23", "80815d37005feb82cd7f8fbc6901d5d3eff43057", "test", 40),
    "math500": Benchmark(
        "HuggingFaceH4/MATH-500", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", "test", 500
    ),
    "gsm8k": Benchmark(
        "openai/gsm8k", "740312add88f781978c0658806c59bc2815b9866", "test", 1319, config="main"
    ),
}


def load_benchmark(name: str) -> Task:
    """Load a named benchmark from the hub or its cache.

    Raises:
        ValueError: the name is unknown, or the data set is not what it should be.
        OSError: it can be had neither from the hub nor from the cache.
    """
    from datasets import load_dataset

    if name not in BENCHMARKS:
        raise ValueError(f"benchmark {name!r} is none of {', '.join(BENCHMARKS)}.")
    entry = BENCHMARKS[name]
    warn_of_waiting(entry.hub_id)
    try:
        dataset: Any = load_dataset(
            entry.hub_id, entry.config, split=entry.split, revision=entry.revision
        )
    except Exception as error:  # the hub's errors have no common class
        raise OSError(
            f"{name} ({entry.hub_id}) could not be loaded: {error}. "
            f"With a copy at hand: --tasks {name}=FILE.parquet."
        ) from error
    source = f"{entry.hub_id}@{entry.revision}"
    rows, _ = parse_problems((Row(n, row) for n, row in enumerate(dataset, start=1)), source)
    return _checked(name, rows, source)


def load_file(name: str, path: Path, bad_rows: BadRows = "error") -> Task:
    """Load a task from a parquet, JSONL, JSON or CSV file, a benchmark's own copy for instance.

    Args:
        name: of the task; that of a benchmark asks for its number of problems.
        path: the file.
        bad_rows: `"error"` stops at the first bad row, `"skip"` leaves them out and counts them in
            the task's source.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a row is bad, for instance its gold answer, or no row is left.
    """
    rows, skipped = parse_problems(read_rows(path), path.name, bad_rows)
    source = f"{path.name}, sha256 {file_hash(path)}"
    return _checked(name, rows, f"{source}, {skipped} bad rows skipped" if skipped else source)


def make_task(name: str, rows: Sequence[RawProblem], source: str) -> Task:
    """A task of mathematics, of rows whose gold answers were checked.

    Raises:
        ImportError: math-verify is not installed.
    """
    # Not at the first response that is a formula, when others are drawn already.
    require("math_verify", "math", f"task {name!r}")
    return Task(
        name=name,
        problems=tuple(
            Problem(str(number), _prompt(row), row.gold) for number, row in enumerate(rows)
        ),
        template=TEMPLATE,
        grade=grade,
        grader=grader_name(),
        source=source,
        sets_thoughts_apart=True,
    )


def _checked(name: str, rows: Sequence[RawProblem], source: str) -> Task:
    entry = BENCHMARKS.get(name)
    if entry is not None and len(rows) != entry.problems:
        raise ValueError(
            f"{name} has {entry.problems} problems, {source} has {len(rows)}: "
            "give the file another task name."
        )
    return make_task(name, rows, source)


def _prompt(row: RawProblem) -> Prompt:
    problem = row.problem.strip()
    for instruction in GIVEN_INSTRUCTIONS:
        problem = problem.removesuffix(instruction).rstrip()
    rendered = TEMPLATE.render(problem)
    return [*row.before, *rendered] if isinstance(rendered, list) else rendered
