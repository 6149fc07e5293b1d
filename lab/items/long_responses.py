"""What being on-policy adds where responses are long, and what a slip does to the states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.comparison import Comparison
from lab.items.compared import Compared
from lab.models import END
from lab.pairs import PAIRS, Pair
from lab.readings import Models, read_states, read_student
from lab.results import Estimate
from oprd.models.batch import MicroBatch

# Of the student's rollouts whose states are looked at.
ROLLOUTS = 250


@dataclass(frozen=True)
class LongResponses(Compared):
    """A comparison on `lab.chains`, with accuracies by length and distances by the first slip."""

    def besides(self, comparison: Comparison) -> dict[str, Any]:
        """Accuracies by the number of terms, and what the untouched student's states are like."""
        pair = PAIRS[comparison.pair]
        lengths = _lengths(pair)
        students = {
            method: [
                by_length(lengths, run.scores()["reported"]["problems"])
                for run in comparison.best(method)
            ]
            for method in comparison.methods
        }
        models, batch = read_student(pair, pair.student.path(), ROLLOUTS)
        solutions = [s for _, s in pair.task_module.examples("test", ROLLOUTS, seed=0)]
        return {"by_length": students, "by_slip": by_slip(models, batch, solutions)}

    def table(self, found: Mapping[str, Any]) -> list[str]:
        """The findings as lines of Markdown."""
        first, *_ = found["by_length"].values()
        terms = list(first[0])
        lines = [f"| terms | {' | '.join(terms)} |", "|---" * (len(terms) + 1) + "|"]
        for method, of in found["by_length"].items():
            cells = [Estimate.of(seed[n] for seed in of).percent() for n in terms]
            lines.append(f"| {method} | {' | '.join(cells)} |")
        slip = found["by_slip"]
        said = (
            f"Cosine of the untouched student's last states and the teacher's, at the same "
            f"{slip['places']} places: {slip['before']:.1%} before the first slip, "
            f"{slip['after']:.1%} behind it."
        )
        return [*super().table(found), "", *lines, "", said]


def by_length(lengths: Sequence[int], problems: Sequence[float]) -> dict[str, float]:
    """Mean accuracy by the number of terms.

    Args:
        lengths: the terms of each problem.
        problems: the accuracy on each, in the same order.
    """
    of, values = np.array(lengths), np.array(problems)
    return {str(n): float(values[of == n].mean()) for n in sorted(set(lengths))}


def by_slip(models: Models, batch: MicroBatch, solutions: Sequence[str]) -> dict[str, float]:
    """Whether states part once a response has left the worked solution.

    States differ by place whatever was written, so that at every place responses that have slipped
    are held beside those that have not, with the weight of the fewer of the two.

    Args:
        models: student and teacher.
        batch: B rollouts of the student.
        solutions: what each should have written, without an end.

    Returns:
        the mean cosine of the last layer's states `before` the first wrong token has been read
        and `after`, and how many `places` have both.

    Raises:
        ValueError: no place has both.
    """
    student, teacher = read_states(models.student, batch), read_states(models.teacher, batch)
    last = max(student)
    rows = torch.cosine_similarity(student[last].float(), teacher[last].float(), dim=1)
    cosines = torch.zeros(batch.response.shape).masked_scatter(batch.response, rows)
    slipped = _slipped(models, batch, solutions)
    means, counts = [], []
    for mask in (batch.response & ~slipped, batch.response & slipped):
        counts.append(mask.sum(dim=0))
        means.append((cosines * mask).sum(dim=0) / mask.sum(dim=0).clamp(min=1))
    weights = torch.minimum(*counts).float()
    if not weights.any():
        raise ValueError("at no place has one response slipped and another not.")
    before, after = (float((mean * weights).sum() / weights.sum()) for mean in means)
    return {"before": before, "after": after, "places": int((weights > 0).sum())}


def _slipped(models: Models, batch: MicroBatch, solutions: Sequence[str]) -> Tensor:
    """[B, K] bool: whether what predicts a token has read one that is not the solution's."""
    right = torch.full_like(batch.response_ids, -1)
    for row, solution in zip(right, solutions, strict=True):
        ids = models.tokenizer(solution + END)["input_ids"][: len(row)]
        row[: len(ids)] = torch.tensor(ids)
    wrong = (batch.response_ids != right) & batch.response
    return wrong.cumsum(dim=1).roll(1, dims=1).index_fill(1, torch.tensor([0]), 0) > 0


def _lengths(pair: Pair) -> list[int]:
    """The terms of each held-out problem, as evaluations report them: by their numbers as text."""
    task = pair.task_module
    counts = [task.terms(problem["prompt"]) for problem in task.prompts()]
    return [counts[number] for number in sorted(range(len(counts)), key=str)]
