"""What was trained and whether it worked, in sentences for someone who was not there."""

from collections.abc import Mapping, Sequence
from typing import Any

from oprd.evaluation.table import points
from oprd.reports.evaluations import AFTER, BEFORE, TaskTable
from oprd.reports.facts import model_name
from oprd.reports.plots import tasks
from oprd.reports.series import logged
from oprd.runs.card import shown_name
from oprd.runs.folder import RunFolder


def lead(run: RunFolder, tables: Sequence[TaskTable]) -> list[str]:
    """Both, each a sentence or two; none where nothing was logged or recorded."""
    if not (run.record and run.metrics):
        return []
    record, settings = run.record, run.settings
    goals = [
        goal
        for goal, is_there in (
            ("hidden states", settings.get("representation_weight") != 0),
            ("output distributions", settings.get("output_loss") not in (None, "none")),
        )
        if is_there
    ]
    student, teacher = (model_name(record.get(role)) for role in ("student", "teacher"))
    what = (
        f"The student, {student}, wrote responses to {_prompts(record)}; the teacher, {teacher}, "
        f"read them; and the student's {' and '.join(goals)} were pulled to the teacher's, for "
        f"{run.step:,} steps."
    )
    return [what, _whether_it_worked(run, tables)]


def _prompts(record: Mapping[str, Any]) -> str:
    count, source = record.get("prompts"), record.get("dataset")
    number = f"{count:,} prompts" if isinstance(count, int) else "prompts"
    return number + (f" from {shown_name(str(source))}" if source else "")


def _whether_it_worked(run: RunFolder, tables: Sequence[TaskTable]) -> str:
    said = [text for table in tables if (text := _gained(table))]
    said = said or [text for each in tasks([run]) if (text := _logged(run, *each))]
    if said:
        return " ".join(said)
    cosine = logged(run.metrics, "rep_cosine")[:, 1]
    closer = ""
    if len(cosine) > 1:
        closer = (
            f"The cosine of both models' states went from {cosine[0]:.3f} to {cosine[-1]:.3f}, "
            "which alone says nothing of answers. "
        )
    return (
        "Whether the student got better is not known: no task was evaluated before and after. "
        f"{closer}oprd eval --run FOLDER --tasks NAME finds out."
    )


def _gained(table: TaskTable) -> str:
    """The student before and after on the same problems, empty where one was not evaluated."""
    if (gain := table.gain) is None:
        return ""
    shares = {row.model: f"{100 * row.average.value:.1f}%" for row in table.rows}
    change = gain.result.difference
    chance = ", within what chance explains" if change.low <= 0 <= change.high else ""
    teacher = f" The teacher solves {shares['teacher']}." if "teacher" in shares else ""
    return (
        f"On {table.task}, {table.problems} problems, the student solved {shares[BEFORE]} before "
        f"and {shares[AFTER]} after: {points(change)}{chance}.{teacher}"
    )


def _logged(run: RunFolder, task: str, figure: str) -> str:
    """The first and the last figure of a task in the log, each with its interval."""
    ends = [logged(run.metrics, f"eval/{task}/{figure}{end}") for end in ("", "_low", "_high")]
    if len(ends[0]) < 2 or len({len(end) for end in ends}) > 1:
        return ""
    shown = []
    for place in (0, -1):
        value, low, high = (100 * end[place, 1] for end in ends)
        step = ends[0][place, 0]
        shown.append(f"{value:.1f}% [{low:.1f}, {high:.1f}] at step {step:,.0f}")
    return f"On {task} the student solved {' and '.join(shown)}."
