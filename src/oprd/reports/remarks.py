"""What a reader of a run is warned of: what it was warned of itself, and what its log shows."""

from collections.abc import Iterator

from oprd.reports.plots import tasks
from oprd.reports.series import logged, series
from oprd.runs.folder import RunFolder
from oprd.runs.lines import is_number
from oprd.runs.record import BEST

# Shares of responses from which on they are worth a word.
CLIPPED, EMPTY = 0.5, 0.05
# Of the end of a run.
LAST = 5


def remarks(run: RunFolder) -> list[str]:
    """Sentences, those of the log first."""
    said: dict[str, list[int]] = {}
    for step, text in run.warnings:
        said.setdefault(text, []).append(step)
    return [*_of_log(run), *(_repeated(text, steps) for text, steps in said.items())]


def _repeated(text: str, steps: list[int]) -> str:
    """A warning, which each part of a run that is gone on with may give anew."""
    when = f"step {steps[0]}: " if steps[0] else ""
    again = f" ({len(steps)} times, last at step {steps[-1]})" if len(steps) > 1 else ""
    return f"{when}{text}{again}"


def _of_log(run: RunFolder) -> Iterator[str]:
    if run.state in ("cut off", "damaged"):
        yield run.note
    broken = [
        line["step"] for line in run.metrics if "loss" in line and not is_number(line["loss"])
    ]
    if broken:
        yield f"The loss was not finite at step {broken[0]}."
    if (share := _end(run, "completions/clipped_ratio")) > CLIPPED:
        yield (
            f"{share:.0%} of the last responses reached the limit of their length: what they would "
            "have gone on to say was not trained. Raise max_completion_length."
        )
    if (share := _end(run, "completions/empty_ratio")) > EMPTY:
        yield f"{share:.0%} of the last responses were empty."
    if (share := _end(run, "completions/unsupervised_ratio")) > EMPTY:
        yield f"In {share:.0%} of the last responses no position was supervised."
    yield from _parted(run)


def _parted(run: RunFolder) -> Iterator[str]:
    """Where states came to agree and a task's figure fell, beyond its interval."""
    cosine = series(run.metrics, "rep_cosine")
    for task, figure in tasks([run]):
        key = f"eval/{task}/{figure}"
        value, high = series(run.metrics, key), series(run.metrics, f"{key}_high")
        if len(value) < 2 or len(high) < 2:
            continue
        best = value.values.argmax()
        if len(cosine) > 1 and cosine.values[-1] > cosine.values[0]:
            low = series(run.metrics, f"{key}_low")
            if len(low) and high.values[-1] < low.values[0]:
                yield (
                    f"States came to agree better, and {task} fell from {value.values[0]:.1%} to "
                    f"{value.values[-1]:.1%}: agreement alone is not what is wanted."
                )
        if high.values[-1] < value.values[best]:
            yield (
                f"{task} was best at step {value.steps[best]:.0f}, {value.values[best]:.1%}, and "
                f"ended at {value.values[-1]:.1%}: {_best(run, f'{task}/{figure}')}."
            )


def _best(run: RunFolder, figure: str) -> str:
    """Where the best student of a figure is, or how it would have been kept."""
    if run.settings.get("keep_best") != figure:
        return f"keep_best: {figure} keeps that student"
    return f"that student is kept in {BEST}/"


def _end(run: RunFolder, key: str) -> float:
    found = logged(run.metrics, key)[-LAST:, 1]
    return float(found.mean()) if len(found) else 0.0
