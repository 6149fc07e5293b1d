"""`oprd doctor`: what is installed, and whether the method works with it."""

import copy
import logging
import math
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import torch
import transformers
from datasets import Dataset
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor
from transformers import PreTrainedModel, PrinterCallback

from oprd.analysis.machine import GIB, machine
from oprd.analysis.replay import replay
from oprd.cli.errors import setting_up
from oprd.cli.tiny import ARCHITECTURES, byte_tokenizer, tiny_model
from oprd.core.capture import capture_states, num_layers
from oprd.core.layers import pair_layers, select_layers
from oprd.core.states.comparison import LayerComparison
from oprd.models.heads import lm_head
from oprd.models.reading import View, base_forward, read
from oprd.runs.record import versions
from oprd.settings.run import OPRDConfig
from oprd.supported import TRANSFORMERS, check_transformers
from oprd.text import one_line
from oprd.training.trainer import OPRDTrainer

ROWS, TOKENS = 2, 16


class Finding(NamedTuple):
    """What a check found."""

    name: str
    passed: bool
    detail: str


def run() -> bool:
    """Print what is installed and what works; whether everything does."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    console = Console()
    console.print(_facts_table(environment()))
    with console.status("Running checks on tiny models"), _quiet():
        findings = [examine(name, check) for name, check in CHECKS.items()]
    console.print(_findings_table(findings))
    passed = all(finding.passed for finding in findings)
    console.print("All checks passed." if passed else "Something is broken here.")
    console.print("For a bug report, paste everything above: it holds no tokens and no paths.")
    return passed


def run_replay(place: Path, student: str | None, teacher: str | None) -> bool:
    """Print what of a batch that a run kept is not finite; whether everything is."""
    with setting_up():
        looked = replay(place, student=student, teacher=teacher)
    Console().print(
        _findings_table([Finding(f.what, f.broken is None, f.broken or "finite") for f in looked])
    )
    return all(found.broken is None for found in looked)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings, which would be about the models made up here."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def environment() -> dict[str, str]:
    """Versions and hardware; nothing is read from environment variables."""
    found = machine()
    free = psutil.virtual_memory().available / GIB
    return {
        **versions(),
        "platform": found["platform"],
        "device": found["accelerator"] or "CPU only: training is in float32",
        "CPU": f"{found['processor']}: {found['cores']} cores, "
        f"threads of PyTorch: {found['threads']}",
        "memory": f"{free:.1f} GiB free of {found['memory_gib']}",
    }


def examine(name: str, check: Callable[[], str]) -> Finding:
    """Run a check; whatever it raises is its finding."""
    try:
        return Finding(name, True, check())
    except Exception as error:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        where = f"{frame.f_globals.get('__name__')}:{line}"
        return Finding(name, False, one_line(f"{type(error).__name__} in {where}: {error}"))


def check_versions() -> str:
    """Transformers is one that this package is tested with."""
    return f"{check_transformers()} is in {TRANSFORMERS}"


def check_self_distillation() -> str:
    """A teacher with the student's weights gives loss 0, and one with others does not."""
    student = tiny_model("llama")
    same = _loss(student, copy.deepcopy(student))
    other = _loss(student, tiny_model("llama", seed=1))
    _expect(same == 0, f"the loss is {same}, not 0")
    _expect(other > 0, f"the loss against another teacher is {other}, not positive")
    return f"loss {same:g}; against another teacher {other:.3g}"


def check_capture() -> str:
    """Captured states equal Transformers' `hidden_states`."""
    for architecture in ARCHITECTURES:
        try:
            wrong = differing_layers(tiny_model(architecture))
        except Exception as error:
            raise RuntimeError(f"{architecture}: {error}") from error
        _expect(not wrong, f"{architecture}: layers {wrong} differ")
    return ", ".join(ARCHITECTURES)


def differing_layers(model: PreTrainedModel) -> list[int]:
    """The layers whose captured states are not those that the model itself returns."""
    with torch.no_grad(), capture_states(model, "all") as states:
        expected = model(_token_ids(), output_hidden_states=True).hidden_states
    layers = range(1, num_layers(model) + 1)
    return [layer for layer in layers if not torch.equal(states[layer], expected[layer])]


def check_heads() -> str:
    """An LM head as output-space losses read it gives the model's own logits."""
    for architecture in ARCHITECTURES:
        try:
            error = head_error(tiny_model(architecture))
        except Exception as problem:
            raise RuntimeError(f"{architecture}: {problem}") from problem
        _expect(error < 1e-4, f"{architecture}: logits are off by {error:.2g}")
    return ", ".join(ARCHITECTURES)


@torch.no_grad()
def head_error(model: PreTrainedModel) -> float:
    """The largest difference of logits by the head that is read from the model's own."""
    ids, head = _token_ids(), lm_head(model)
    states = base_forward(model, ids, torch.ones_like(ids)).last_hidden_state
    assert states is not None
    rows = states.flatten(0, 1)
    logits = head.logits(rows, out=rows.new_empty(len(rows), head.vocab_size))
    return (logits - model(ids).logits.flatten(0, 1)).abs().max().item()


def check_training_step() -> str:
    """A step of the trainer moves the student, with a finite loss, and not the teacher."""
    student, teacher = tiny_model("llama"), tiny_model("llama", seed=1)
    before = copy.deepcopy(student.state_dict()), copy.deepcopy(teacher.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        trainer = OPRDTrainer(
            model=student,
            teacher_model=teacher,
            args=OPRDConfig(
                output_dir=folder,
                max_steps=1,
                per_device_train_batch_size=ROWS,
                max_completion_length=TOKENS,
                learning_rate=1e-2,
                warmup_steps=0,
                logging_steps=1,
                save_strategy="no",
                dataloader_pin_memory=torch.accelerator.is_available(),
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_dict({"prompt": ["What is 2 + 2?", "Say hello."]}),
            processing_class=byte_tokenizer(),
            teacher_processing_class=byte_tokenizer(),
        )
        trainer.remove_callback(PrinterCallback)
        loss = trainer.train().training_loss
    _expect(math.isfinite(loss) and loss > 0, f"the loss is {loss}")
    _expect(not _equal(before[0], student), "the student's weights did not change")
    _expect(_equal(before[1], teacher), "the teacher's weights changed")
    return f"loss {loss:.3g}"


CHECKS = {
    "Transformers is a tested one": check_versions,
    "teacher = student gives loss 0": check_self_distillation,
    "captured states = hidden_states": check_capture,
    "LM heads as read = logits": check_heads,
    "one training step": check_training_step,
}


def _loss(student: PreTrainedModel, teacher: PreTrainedModel) -> float:
    view, layers = View.of_texts(_token_ids()), select_layers("all", num_layers(student))
    pairs = pair_layers(layers, num_layers(student), num_layers(teacher))
    with torch.no_grad():
        comparison = LayerComparison(read(teacher, view, layers).states, pairs, view.rows)
        read(student, view, layers, transform=comparison)
    return comparison.result().loss.total.item()


def _token_ids() -> Tensor:
    return torch.arange(ROWS * TOKENS).reshape(ROWS, TOKENS)


def _equal(before: dict[str, Tensor], model: PreTrainedModel) -> bool:
    after = model.state_dict()
    return all(torch.equal(value.to(after[name]), after[name]) for name, value in before.items())


def _expect(condition: bool, problem: str) -> None:
    # Not an assert: `python -O` must not switch checks off.
    if not condition:
        raise RuntimeError(problem)


def _facts_table(facts: dict[str, str]) -> Table:
    table = Table(title="oprd doctor", show_header=False)
    for name, value in facts.items():
        table.add_row(Text(name, style="bold"), Text(value))
    return table


def _findings_table(findings: list[Finding]) -> Table:
    table = Table("check", "result", "detail")
    for finding in findings:
        result = Text("pass", style="green") if finding.passed else Text("FAIL", style="bold red")
        table.add_row(Text(finding.name), result, Text(finding.detail))
    return table
