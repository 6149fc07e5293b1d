"""What being on-policy adds where responses are long, and how far states are behind a slip."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab.comparison import Comparison
from lab.items.compared import Compared
from lab.pairs import PAIRS, Pair
from lab.readings import Models, load_models, read_states, write_rollouts
from lab.results import Estimate
from lab.scores import as_reported
from oprd.models.batch import MicroBatch

# The student's rollouts whose states are looked at, and how often they are drawn again.
ROLLOUTS, RESAMPLES = 250, 999


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
        asked, solutions = zip(*pair.task_module.examples("test", ROLLOUTS, seed=0), strict=True)
        models = load_models(pair.student.path(), pair.teacher.path())
        limit = pair.task_module.LONGEST_RESPONSE
        batch = write_rollouts(models.student, models.tokenizer, asked, limit, seed=0)
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
            "Cosine of the untouched student's last states and the teacher's where both kinds of "
            f"responses are, {slip['places']} places: {slip['before']:.1%} before a slip, "
            f"{slip['after']:.1%} behind it, {Estimate(**slip['difference']).points()} points."
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


def by_slip(
    models: Models, batch: MicroBatch, solutions: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Whether states are further apart in responses that have left the worked solution.

    States differ by place whatever was written, so that at every place responses that have slipped
    are held beside those that have not, with the weight of the fewer of the two. Who slips has the
    harder problems, too: this is what goes with a slip, not what it alone does.

    Args:
        models: student and teacher.
        batch: B rollouts of the student.
        solutions: what each should have written, without an end.
        seed: of the bootstrap over rollouts.

    Returns:
        the mean cosine of the last layer's states `before` the first wrong token has been read
        and `after`, their `difference` with its 95% interval, and how many `places` have both.

    Raises:
        ValueError: no place has both.
    """
    student, teacher = read_states(models.student, batch), read_states(models.teacher, batch)
    last = max(student)
    values = torch.cosine_similarity(student[last].float(), teacher[last].float(), dim=1)
    cosines = torch.zeros(batch.response.shape).masked_scatter(batch.response, values).numpy()
    slipped = _slipped(models, batch, solutions)
    kinds = [(batch.response & of).numpy() for of in (~slipped, slipped)]
    places = int((kinds[0].any(axis=0) & kinds[1].any(axis=0)).sum())
    if not places:
        raise ValueError("at no place has one response slipped and another not.")
    before, after = _matched(cosines, kinds)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(cosines), size=(RESAMPLES, len(cosines)))
    again = np.array([_matched(cosines[rows], [of[rows] for of in kinds]) for rows in drawn])
    low, high = np.nanpercentile(again[:, 1] - again[:, 0], [2.5, 97.5])
    difference = Estimate(after - before, float(low), float(high))
    return {"before": before, "after": after, "places": places, "difference": asdict(difference)}


def _matched(cosines: np.ndarray, kinds: Sequence[np.ndarray]) -> list[float]:
    """The mean of each kind over places, which weigh as the rarer kind is there; NaN without any.

    Args:
        cosines: [B, K].
        kinds: two masks [B, K].
    """
    counts = [of.sum(axis=0) for of in kinds]
    weights = np.minimum(*counts)
    total = weights.sum() or np.nan
    means = [
        (cosines * of).sum(axis=0) / np.maximum(count, 1)
        for of, count in zip(kinds, counts, strict=True)
    ]
    return [float((mean * weights).sum() / total) for mean in means]


def _slipped(models: Models, batch: MicroBatch, solutions: Sequence[str]) -> Tensor:
    """[B, K] bool: whether what predicts a token has read one that is not the solution's."""
    right = torch.full_like(batch.response_ids, -1)
    for row, solution in zip(right, solutions, strict=True):
        ids = models.tokenizer(solution)["input_ids"][: len(row)]
        row[: len(ids)] = torch.tensor(ids)
    wrong = batch.response_ids != right
    return wrong.cumsum(dim=1).roll(1, dims=1).index_fill(1, torch.tensor([0]), 0) > 0


def _lengths(pair: Pair) -> list[int]:
    """The terms of each held-out problem, in the order of evaluations."""
    task = pair.task_module
    return as_reported([task.terms(problem["prompt"]) for problem in task.prompts()])
