"""The queue: plans say which runs they need, workers make those that are not there.

Any number of workers, started at any time, share the work: a run belongs to whoever locks it, and a
lock goes with its process, however that ends.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor

import typer
from filelock import FileLock, Timeout

from lab.models import Trained
from lab.pairs import PAIRS
from lab.processes import adding_alike, end_with_parent
from lab.runs import Run, execute

Plan = Callable[[], Sequence[Run]]
# Between looks at the runs that others are making.
WAIT_SECONDS = 5


def finish(plan: Plan, workers: int) -> None:
    """Make the runs of a plan and their models, in processes of one thread, as suits small ones.

    Raises:
        SystemExit: a worker failed.
    """
    if all(run.finished for run in plan()):
        return
    context = adding_alike()
    started = [context.Process(target=_worker, args=(plan,)) for _ in range(workers)]
    for process in started:
        process.start()
    for process in started:
        process.join()
    if any(process.exitcode for process in started):
        raise SystemExit("a worker of the lab failed: see its error above.")


def each(make: Callable[[str], None], names: Sequence[str], workers: int) -> None:
    """Call a function with every name, in processes of one thread; its first error is raised."""
    with ProcessPoolExecutor(workers, adding_alike(), initializer=end_with_parent) as pool:
        list(pool.map(make, names))


def models(runs: Iterable[Run]) -> list[Trained]:
    """All students and teachers of some runs that the lab trains."""
    pairs = [PAIRS[run.pair] for run in runs]
    made_by = [
        of for pair in pairs for model in (pair.teacher, pair.student) for of in model.made_by
    ]
    return list(dict.fromkeys(made_by))


def train_once(model: Trained) -> None:
    """Train a model that is not there.

    Raises:
        Timeout: another process is training it.
    """
    if model.finished:
        return
    model.folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(model.lock, timeout=0):
        if not model.finished:
            model.train()


def _worker(plan: Plan) -> None:
    end_with_parent()
    work(plan)


def work(plan: Plan) -> None:
    """Make what a plan lacks until it lacks nothing.

    A plan is asked again after every run, because later runs may depend on what earlier ones found.
    """
    while lacking := [run for run in plan() if not run.finished]:
        if not any(map(make, lacking)):
            time.sleep(WAIT_SECONDS)


def make(run: Run) -> bool:
    """Make a run and its models unless another process is making one of them; whether it did.

    Raises:
        ValueError: the teacher is no better than the student.
    """
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        for model in models([run]):
            train_once(model)
        PAIRS[run.pair].check(run.samples["reported"])
        with FileLock(f"{run.folder}.lock", timeout=0):
            if run.finished:
                return False
            execute(run)
    except Timeout:
        return False
    typer.echo(f"finished {run.folder.name}")
    return True
