"""Supervised fine-tuning as a run of the lab."""

from safetensors.torch import load_file

from lab import runs
from lab.results import accuracy
from lab.runs import Run
from lab.tokens import MORE_STEPS, SUPERVISED_ON_SOLUTIONS
from tests.lab.fakes import TINY_PAIR


def test_it_trains_on_as_many_more_solutions_as_take_the_time_of_distillation(
    tiny_pair, monkeypatch
):
    drawn, task = [], tiny_pair.task_module
    examples = task.examples
    monkeypatch.setattr(
        task, "examples", lambda *of, **given: drawn.append(of[1]) or examples(*of, **given)
    )
    name = SUPERVISED_ON_SOLUTIONS
    run = Run(TINY_PAIR, name, 1e-3, 0, steps=2, rollouts=2, eval_every=1, quick=True)
    runs.execute(run)
    assert run.finished and drawn[0] == 2 * 2 * MORE_STEPS[name]
    assert accuracy(run).steps.tolist() == [step * MORE_STEPS[name] for step in (0, 1, 2)]
    before, after = (
        load_file(folder / "model.safetensors")["model.norm.weight"]
        for folder in (tiny_pair.student.path(), run.folder)
    )
    assert not before.equal(after)
