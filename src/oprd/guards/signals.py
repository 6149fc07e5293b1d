"""A signal ends a run after its step, with a checkpoint; a second one ends it at once."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from accelerate import Accelerator
from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_jit_checkpoint import JITCheckpointCallback

SIGNALS = (signal.SIGTERM, signal.SIGINT)
# What a shell adds to the number of a signal that ended a program.
BASE = 128
# A launcher passes on a Ctrl-C that a terminal has sent to its processes already.
TWICE_SECONDS = 1.0


class Stopped(SystemExit):
    """A run that a signal ended, with a checkpoint; where nothing takes it, it ends the program.

    Attributes:
        code: 143 after SIGTERM, 130 after Ctrl-C.
        step: after which it ended.
        checkpoint: to go on from.
    """

    def __init__(self, number: int, step: int, checkpoint: Path) -> None:
        super().__init__(BASE + number)
        self.step, self.checkpoint = step, checkpoint


class Interruption(TrainerCallback):
    """Ends a run that SIGTERM or Ctrl-C asks to end, after the same step in all processes.

    Handlers of others, and signals that are ignored, stay as they are.

    Args:
        accelerator: of the run.
        every: steps between which it may end: those on the same rollouts.

    Attributes:
        number: of the signal that ends the run, as agreed; 0 where none does.
        way_on: what a person does to go on.
    """

    def __init__(self, accelerator: Accelerator, every: int) -> None:
        self.number = 0
        self.way_on = "resume_from_checkpoint auto"
        self._accelerator, self._every = accelerator, every
        self._asked, self._since, self._saved = 0, 0.0, -1
        self._over, self._process = False, os.getpid()
        self._before: dict[int, Any] = {}

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take signals as questions; they are the main thread's to take."""
        self.number = self._asked = 0
        self._over, self._process = False, os.getpid()
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                    self._before[number] = signal.signal(number, self._ask)
        try:
            yield
        finally:
            while self._before:
                signal.signal(*self._before.popitem())

    def _ask(self, number: int, frame: object) -> None:
        """A handler: nothing here may wait for what it interrupts."""
        if os.getpid() != self._process:
            _take_as_child(number)
            return
        launched = "LOCAL_RANK" in os.environ
        if self._asked:
            if time.monotonic() - self._since > TWICE_SECONDS:
                os._exit(BASE + number)
            return
        self._asked, self._since = number, time.monotonic()
        if self._accelerator.is_main_process:
            said = f"\n{_name(number)}: {self._answer()}; a second one ends it at once.\n"
            os.write(2, said.encode())
        if not launched:
            for taken, before in self._before.items():
                # Which ends a program whatever it waits for, and would end a notebook too.
                signal.signal(taken, before if hasattr(sys, "ps1") else signal.SIG_DFL)

    def _answer(self) -> str:
        if self._over:
            return "the last step is done, and the run ends as it would"
        when = "this step" if self._every == 1 else "the updates on these rollouts"
        return f"the run ends after {when}, with a checkpoint"

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End here, with a checkpoint in the place of an evaluation."""
        if self._ends(state, control):
            control.should_save, control.should_evaluate = True, False

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """End here where the question came during an evaluation."""
        self._ends(state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Likewise, during a save."""
        self._saved = state.global_step
        self._ends(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save a run that ends before another reason to save it."""
        if self._ends(state, control):
            control.should_save = self._saved != state.global_step
            control.should_evaluate = False
        # Nothing looks for a signal after this.
        self._over = control.should_training_stop or state.global_step >= state.max_steps

    def end(self, state: TrainerState, folder: Path) -> None:
        """Say, in one line, what was done; nothing where no signal came.

        Raises:
            Stopped: one ended the run.
        """
        if self.number:
            self._end(state.global_step, folder / f"checkpoint-{state.global_step}")
        if self._asked and self._accelerator.is_main_process:
            said = "came after the last step, and the run has ended as it would have without it."
            tqdm.write(f"{_name(self._asked)} {said}", file=sys.stderr)

    def _end(self, step: int, checkpoint: Path) -> NoReturn:
        if self._accelerator.is_main_process:
            said = f"{_name(self.number)}: ended after step {step}, saved in {checkpoint}. Go on "
            tqdm.write(f"{said}with: {self.way_on}", file=sys.stderr)
        raise Stopped(self.number, step, checkpoint)

    def _ends(self, state: TrainerState, control: TrainerControl) -> bool:
        if state.global_step % self._every == 0:
            self.number = self._agreed()
            control.should_training_stop |= bool(self.number)
        return bool(self.number)

    def _agreed(self) -> int:
        """The same in all processes, though not all may have been asked.

        One number of each, when all updates on the same rollouts are made: the next rollouts wait
        for the weights anyhow. Two processes over gloo take 0.24 to 0.85 ms for it on two busy
        cores, beside 200 ms for a step of the smallest model of the tests.
        """
        if self._accelerator.num_processes == 1:
            return self._asked
        asked = torch.tensor([self._asked], device=self._accelerator.device)
        return int(cast(torch.Tensor, self._accelerator.gather(asked)).max())


def take_over(trainer: Trainer) -> None:
    """Take the signal from Transformers' own callback, `enable_jit_checkpoint`.

    Its checkpoints may fall within a step, and its run ends as if it had been trained.
    """
    theirs = trainer.pop_callback(JITCheckpointCallback)
    if theirs is not None:
        theirs.on_train_end(trainer.args, trainer.state, trainer.control)


def _take_as_child(number: int) -> None:
    """In a process that was forked from the run's, such as one that loads data.

    A terminal sends Ctrl-C to it too, while the run still needs it for its step.
    """
    if number != signal.SIGINT:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _name(number: int) -> str:
    return signal.Signals(number).name
