"""The page on the method: its lines give the trainer's loss and step, and its files are there."""

import re
from pathlib import Path

import pytest
import torch

from tests import tiny
from tests.training import runs

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/method.md").read_text()
(CODE,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


def naive_update():
    names = {}
    exec(compile(CODE, "docs/method.md", "exec"), names)
    return names["naive_update"]


def rollouts():
    prompts = [tiny.tokenizer()(prompt)["input_ids"] for prompt in runs.PROMPTS[:4]]
    return [(prompt, runs.scripted(prompt)) for prompt in prompts]


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({}, {}),
        ({"layers": "2,3", "position_k": 3}, {"layers": (2, 3), "k": 3}),
        (
            {"output_loss": "reverse_kl", "output_weight": 0.5, "representation_weight": 10.0},
            {"mu": 10.0, "w": 0.5},
        ),
    ],
)
def test_forty_naive_lines_give_the_loss_and_the_step_of_the_trainer(tmp_path, settings, options):
    student, teacher = tiny.model(seed=1).double(), tiny.model(seed=2).double()
    expected = naive_update()(student, teacher, rollouts(), **options)
    expected.backward()
    gradients = {name: parameter.grad for name, parameter in student.named_parameters()}
    before = runs.weights(student)
    student.zero_grad()
    made = runs.trainer(
        tmp_path,
        student=student,
        teacher=teacher,
        prompts=runs.PROMPTS[:4],
        learning_rate=1.0,
        max_grad_norm=0.0,
        scale="none",
        **settings,
    )
    made.train()
    assert made.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-6)
    for name, after in runs.weights(student).items():
        torch.testing.assert_close(before[name] - after, gradients[name], rtol=1e-6, atol=1e-7)


def test_the_naive_update_stays_at_forty_lines():
    body = [line for line in CODE.splitlines() if line.strip() and not line.startswith("import")]
    assert len(body) <= 42


def test_every_file_that_the_page_names_is_there():
    named = set(re.findall(r"`((?:\w+/)+\w*\.?\w*)`", PAGE))
    assert len(named) > 15
    for name in named:
        place = ROOT / name if name.startswith("tests/") else ROOT / "src" / "oprd" / name
        assert place.exists(), name
