import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from lab import runs
from lab.methods import METHODS
from lab.results import accuracy
from lab.runs import Run
from lab.tokens import MORE_STEPS, SUPERVISED, SUPERVISED_ON_SOLUTIONS
from lab.variants.supervised import Supervised
from tests import tiny
from tests.lab.fakes import TINY_PAIR
from tests.models.built_tokenizers import sentencepiece
from tests.training.runs import PROMPTS, scripted, trainer
from tests.training.teachers.test_own_tokens import teacher

OPTIONS = {**METHODS[SUPERVISED], "scale": None}


@pytest.mark.parametrize("size", [8, 2])
def test_the_loss_is_the_mean_cross_entropy_of_what_is_written_however_it_is_split(tmp_path, size):
    student, prompts = tiny.model(seed=1), PROMPTS[:8]
    total, count = torch.zeros(()), 0
    for prompt in prompts:
        ids = tiny.tokenizer()(prompt)["input_ids"]
        response = torch.tensor(scripted(ids))
        with torch.no_grad():
            logits = student(torch.tensor([[*ids, *response.tolist()]])).logits[0]
        total += cross_entropy(logits[len(ids) - 1 : -1], response, reduction="sum")
        count += len(response)
    made = trainer(
        tmp_path,
        student=student,
        teacher=teacher(sentencepiece()),
        reads_with=sentencepiece(),
        kind=Supervised,
        prompts=prompts,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=8 // size,
        **OPTIONS,
    )
    made.train()
    assert made.state.log_history[0]["loss"] == pytest.approx(float(total) / count, rel=1e-4)


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
