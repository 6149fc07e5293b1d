import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock, Timeout

from lab import models, queue, runs
from lab.methods import METHODS
from lab.models import Recipe
from lab.moments import Moment
from lab.pairs import PAIRS, Pair
from lab.runs import Run, execute
from oprd import OPRDConfig
from oprd.analysis.machine import machine
from tests.lab.fakes import scores
from tests.lab.left import leave_process


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "CACHE", tmp_path)
    monkeypatch.setattr(runs, "RECORDS", tmp_path / "results")


@pytest.fixture
def executed(cache, monkeypatch):
    done = []

    def execute(run):
        done.append(run)
        run.folder.mkdir(parents=True, exist_ok=True)
        (run.folder / "scores.json").touch()

    monkeypatch.setattr(queue, "execute", execute)
    monkeypatch.setattr(queue, "train_once", lambda recipe: None)
    monkeypatch.setattr(Pair, "check", lambda self, samples: None)
    return done


RUNS = [Run("sums", "OPRD", 1e-3, seed) for seed in range(3)]


def test_every_method_is_a_setting_of_a_run():
    for method in METHODS:
        settings = Run("sums", method, 1e-3, 0).settings
        assert OPRDConfig(output_dir="unused", use_cpu=True, bf16=False, **settings)


def test_whatever_decides_the_numbers_of_a_run_names_its_folder(cache):
    changed = [
        Run("sums", "OPRD", 1e-3, 0),
        Run("sums", "OPRD", 2e-3, 0),
        Run("sums", "OPRD", 1e-3, 1),
        Run("sums", "OPRD", 1e-3, 0, steps=10),
        Run("sums", "OPRD", 1e-3, 0, options=(("layers", "last"),)),
        Run("sorting", "OPRD", 1e-3, 0),
    ]
    assert len({run.folder for run in changed}) == len(changed)


@pytest.mark.parametrize(("method", "different"), [("OPRD", 8), ("OPRD, 1 prompt", 1)])
def test_a_run_of_few_prompts_repeats_them_and_one_of_many_does_not(method, different):
    run = Run("sums", method, 1e-3, 0, steps=2, rollouts=4)
    problems = runs._problems(run)
    assert (len(problems), len(set(problems))) == (8, different)
    assert set(problems) <= set(runs._problems(replace(run, method="OPRD")))
    assert set(problems) != set(runs._problems(replace(run, seed=1)))


def test_a_method_that_was_changed_makes_another_run(cache, monkeypatch):
    before = Run("sums", "OPRD", 1e-3, 0).folder
    monkeypatch.setitem(METHODS, "OPRD", {"layers": "last"})
    assert Run("sums", "OPRD", 1e-3, 0).folder != before


def test_the_second_of_two_stages_has_the_rest_of_the_steps_and_the_rate_of_the_run():
    settings = Run("sums, other shape", "Bridge, then reverse KL", 5e-3, 0, steps=40).settings
    assert [stage["steps"] for stage in settings["stages"]] == [10, 30]
    first, second = OPRDConfig(
        output_dir="unused", use_cpu=True, bf16=False, learning_rate=5e-3, **settings
    ).objectives()
    assert (first.learning_rate, first.output_loss) == (1e-3, "none")
    assert (second.learning_rate, second.output_loss) == (5e-3, "reverse_kl")


@pytest.fixture
def made(cache, monkeypatch):
    """What is trained and evaluated, without either."""
    trained = []

    def distil(run):
        trained.append(run)
        run.folder.mkdir(parents=True)
        (run.folder / "model.safetensors").touch()
        (run.folder / "metrics.jsonl").write_text('{"step": 1}\n')
        made_with = {"versions": {"oprd": "0"}, "output_dir": "/of/this/machine"}
        (run.folder / "run.json").write_text(json.dumps(made_with))

    def evaluate(model, task, file, counts):
        assert (model / "model.safetensors").exists()
        file.write_text(json.dumps(scores(0.5)))

    monkeypatch.setattr(runs, "_distil", distil)
    monkeypatch.setattr(runs, "scores", evaluate)
    return trained


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize(("pair", "recorded"), [("sums", False), ("additions", True)])
def test_of_a_run_that_takes_long_what_it_found_alone_stays_with_the_results(
    made, pair, recorded, quick
):
    run = Run(pair, "OPRD", 1e-3, 0, quick=quick)
    execute(run)
    assert run.finished
    assert (run.versions(), run.metrics()) == ({"oprd": "0"}, [{"step": 1}])
    assert run.scores()["reported"]["accuracy"] == 0.5
    assert (run.folder / "model.safetensors").exists() != recorded
    assert run.record.exists() == recorded
    assert run.machine == (machine() if recorded else None)
    if recorded:
        assert not run.folder.exists()
        assert "/of/this/machine" not in (run.record / "run.json").read_text()
        committed = run.record.relative_to(runs.RECORDS).parts[0] == "runs"
        assert committed != quick


def test_a_run_that_was_killed_before_its_evaluation_is_not_trained_again(made):
    execute(RUNS[0])
    (RUNS[0].folder / "scores.json").unlink()
    assert not RUNS[0].finished
    execute(RUNS[0])
    assert RUNS[0].finished
    assert made == RUNS[:1]


def test_a_run_that_was_killed_while_it_was_recorded_is_recorded_and_not_trained_again(
    made, monkeypatch
):
    run = Run("additions", "OPRD", 1e-3, 0)
    copy = runs.shutil.copy

    def killed(source, target):
        copy(source, target)
        if source.name == "scores.json":
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(runs.shutil, "copy", killed)
        execute(run)
    assert not run.finished
    execute(run)
    assert run.finished
    assert made == [run]
    assert [folder.name for folder in run.record.parent.iterdir()] == [run.name]


def test_models_that_the_lab_does_not_train_are_no_work_for_the_queue():
    (recipe,) = queue.models([Run("additions", "OPRD", 1e-3, 0), RUNS[0]])
    assert recipe.task == "sums"


@pytest.mark.parametrize("teacher", [0.2, 0.3])
def test_a_pair_whose_teacher_is_no_better_than_its_student_is_refused(monkeypatch, teacher):
    solved = {PAIRS["sums"].teacher: teacher, PAIRS["sums"].student: 0.3}
    monkeypatch.setattr(Moment, "scores", lambda self, samples: scores(solved[self]))
    with pytest.raises(ValueError, match=f"teacher solves {teacher:.1%} and its student 30.0%"):
        PAIRS["sums"].check(samples=8)
    solved[PAIRS["sums"].teacher] = 0.31
    PAIRS["sums"].check(samples=8)


def test_no_run_is_made_of_a_pair_that_is_refused(executed, monkeypatch):
    def refuse(self, samples):
        raise ValueError("nothing to learn")

    monkeypatch.setattr(Pair, "check", refuse)
    with pytest.raises(ValueError, match="nothing to learn"):
        queue.make(RUNS[0])
    assert executed == []


def test_a_finished_run_is_not_made_again(executed):
    queue.work(lambda: RUNS)
    queue.work(lambda: RUNS)
    assert executed == RUNS


def test_a_run_that_another_process_makes_is_waited_for(executed, monkeypatch):
    monkeypatch.setattr(queue, "WAIT_SECONDS", 0.01)
    RUNS[0].folder.parent.mkdir(parents=True)
    lock = FileLock(f"{RUNS[0].folder}.lock", thread_local=False)
    lock.acquire()
    other = threading.Thread(target=queue.work, args=(lambda: RUNS,))
    other.start()
    other.join(timeout=0.5)
    assert other.is_alive()
    assert executed == RUNS[1:]
    lock.release()
    other.join(timeout=10)
    assert executed == [*RUNS[1:], RUNS[0]]


def test_runs_whose_model_another_process_trains_are_left_for_later(executed, monkeypatch):
    busy, free = Run("sums", "OPRD", 1e-3, 0), Run("sorting", "OPRD", 1e-3, 0)
    (elsewhere,) = queue.models([busy])

    def train_once(recipe):
        if recipe == elsewhere and not executed:
            raise Timeout("its lock")

    monkeypatch.setattr(queue, "WAIT_SECONDS", 0.01)
    monkeypatch.setattr(queue, "train_once", train_once)
    queue.work(lambda: [busy, free])
    assert executed == [free, busy]


def test_a_model_is_trained_by_one_process_and_once(tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(models, "CACHE", tmp_path)
    monkeypatch.setattr(Recipe, "train", lambda self: trained.append(self))
    recipe = Recipe("sums")
    with FileLock(f"{recipe.folder}.lock", is_singleton=False), pytest.raises(Timeout):
        queue.train_once(recipe)
    queue.train_once(recipe)
    assert trained == [recipe]
    recipe.folder.mkdir(parents=True)
    (recipe.folder / "finished").touch()
    queue.train_once(recipe)
    assert trained == [recipe]


@pytest.fixture
def environment(monkeypatch):
    """What processes are started with goes with the test."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    # Of what is deleted alone and was not there, nothing would be taken back.
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY")


def test_where_nothing_is_lacking_no_process_is_started(cache, environment, monkeypatch):
    monkeypatch.setattr(queue, "adding_alike", None)
    for run in RUNS:
        run.folder.mkdir(parents=True)
        (run.folder / "scores.json").touch()
    queue.finish(lambda: RUNS, workers=2)
    with pytest.raises(TypeError):
        queue.finish(lambda: [*RUNS, Run("sums", "OPRD", 1e-3, 9)], workers=2)


@pytest.mark.parametrize(("can", "take"), [("AVX512", "avx2"), ("AVX2", "all")])
def test_reports_are_made_in_processes_that_add_alike_whose_errors_are_raised(
    tmp_path, environment, monkeypatch, can, take
):
    names = [str(tmp_path / name) for name in "abc"]
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: can)
    with pytest.raises(ValueError, match="a name that is bad"):
        queue.each(leave_process, [*names, "bad"], workers=2)
    left = [Path(name).read_text().split() for name in names]
    assert str(os.getpid()) not in {process for process, *_ in left}
    assert {tuple(found) for _, *found in left} == {("1", take)}
