"""What is told of runs, in whatever form: worked out once from their folders."""

from collections.abc import Sequence
from dataclasses import dataclass

from oprd.evaluation.result import Evaluation
from oprd.reports import facts
from oprd.reports.across import AcrossTable, across
from oprd.reports.again import again
from oprd.reports.evaluations import TaskTable, read_evaluations, task_tables
from oprd.reports.lead import lead
from oprd.reports.parting import Coloured, Scale, coloured
from oprd.reports.plots import letter
from oprd.reports.remarks import remarks
from oprd.runs.card import shown_settings
from oprd.runs.folder import RunFolder

# Pairs of answers of a task: of one run, and of each of several.
PAIRS_OF_ONE, PAIRS_OF_SEVERAL = 4, 1


@dataclass(frozen=True)
class RunPage:
    """What is told of a run."""

    letter: str
    run: RunFolder
    lead: list[str]
    what: list[tuple[str, str]]
    figures: list[tuple[str, str]]
    settings: list[tuple[str, str]]
    again: tuple[str, str] | None
    versions: str
    remarks: list[str]
    tables: list[TaskTable]
    rollouts: list[Coloured]
    scale: Scale | None


@dataclass(frozen=True)
class Report:
    """What is told of runs.

    Attributes:
        pages: one a run, in their order.
        across: their students on the same problems.
        apart: tasks on which several runs were evaluated, but not alike.
    """

    pages: list[RunPage]
    across: list[AcrossTable]
    apart: list[str]

    @property
    def runs(self) -> list[RunFolder]:
        """The runs."""
        return [page.run for page in self.pages]


def read(runs: Sequence[RunFolder]) -> Report:
    """Read what runs left of evaluations, and work out what is told of them.

    Raises:
        ImportError: scipy is not installed.
    """
    evaluations = [read_evaluations(run.path) for run in runs]
    tables, apart = across([found for found, _ in evaluations]) if len(runs) > 1 else ([], [])
    pages = [
        _page(number, run, len(runs), *read)
        for number, (run, read) in enumerate(zip(runs, evaluations, strict=True))
    ]
    return Report(pages, tables, apart)


def _page(
    number: int, run: RunFolder, of: int, evaluations: list[Evaluation], broken: list[str]
) -> RunPage:
    rollouts, scale = coloured(run.samples, of)
    tables = task_tables(evaluations, PAIRS_OF_ONE if of == 1 else PAIRS_OF_SEVERAL)
    return RunPage(
        letter=letter(number),
        run=run,
        lead=lead(run, tables),
        what=facts.what_was_run(run),
        figures=facts.key_figures(run, tables) if run.metrics else [],
        settings=shown_settings(run.settings),
        again=again(run),
        versions=facts.versions(run),
        remarks=[*remarks(run), *broken],
        tables=tables,
        rollouts=rollouts,
        scale=scale,
    )
