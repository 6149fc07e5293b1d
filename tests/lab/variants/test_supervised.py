"""Supervised fine-tuning as a run of the lab."""

from safetensors.torch import load_file

from lab import runs
from lab.methods import SUPERVISED, SUPERVISED_UPDATES
from lab.results import accuracy
from lab.runs import Run
from tests.lab.fakes import TINY_PAIR


def test_it_leaves_a_student_and_a_curve_that_counts_the_steps_of_distillation(
    tiny_pair, monkeypatch
):
    drawn = []
    task = tiny_pair.task_module
    examples = task.examples
    monkeypatch.setattr(
        task, "examples", lambda *of, **given: drawn.append(of[1]) or examples(*of, **given)
    )
    run = Run(TINY_PAIR, SUPERVISED, 1e-3, 0, steps=2, rollouts=2, eval_every=1, quick=True)
    runs.execute(run)
    assert run.finished and drawn[0] == 2 * 2 * SUPERVISED_UPDATES
    assert accuracy(run).steps.tolist() == [0, 1, 2]
    before, after = (
        load_file(folder / "model.safetensors")["model.norm.weight"]
        for folder in (tiny_pair.student.path(), run.folder)
    )
    assert not before.equal(after) and run.versions()["trl"]
