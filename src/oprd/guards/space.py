"""Room for a run's checkpoints: looked for before the first step and before each save."""

import errno
import math
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from oprd.log import get_logger
from oprd.models.average import MovingAverage
from oprd.runs.checkpoints import bytes_of_run
from oprd.runs.record import BEST
from oprd.runs.space import Need, disk_problem, free_bytes, shortage

# Of a tokenizer's files, for each of its tokens: 75 to 135 as they are published.
TOKEN_BYTES = 150
# Configuration and random states, and a line of the trainer's log.
FURTHER_BYTES, LINE_BYTES = 2**20, 1000
# Under DeepSpeed: two moments and the weights themselves, in float32.
DEEPSPEED_BYTES = 12

logger = get_logger(__name__)


class Space(TrainerCallback):
    """Looks whether there is room, names what is missing, and leaves no half checkpoint.

    Args:
        trainer: whose saves they are.
        tokens: of its tokenizer.
        average: of the weights that train, which a checkpoint holds too where a run has one.
        kept: bytes of what else it holds at most.
    """

    def __init__(
        self,
        trainer: Trainer,
        tokens: int,
        average: Callable[[], MovingAverage | None] = lambda: None,
        kept: Callable[[], int] = lambda: 0,
    ) -> None:
        self._trainer, self._tokens, self._inside = trainer, tokens, False
        self._average, self._kept = average, kept

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Refuse a run whose first checkpoint finds no room; warn of one whose later ones do not.

        One that saves no checkpoints may save its student elsewhere, and is warned; see
        `check_student`.

        Raises:
            OSError: there is no room.
        """
        saves, folder = _saves(state, args), self._folder
        student = self._need(weights_only=True)
        if not saves:
            if args.should_save and (missing := shortage(folder, student, self._freed)) is not None:
                logger.warning(f"No room for the student of this run: {missing}.")
            return
        checkpoint = self._need()
        self._check(folder, checkpoint + student, freed=self._freed)
        kept = min(saves, args.save_total_limit + 1) if args.save_total_limit else saves
        whole = kept * checkpoint.all + student.all
        if whole > (free := free_bytes(folder) + self._freed):
            logger.warning(
                f"The {kept} checkpoints that this run keeps at once, and its student, take about "
                f"{whole:,} bytes, and {free:,} are free in {folder}: keep fewer with "
                "save_total_limit, or save less often with save_steps."
            )

    def check_student(self) -> None:
        """Refuse, before it trains, a run whose student is going to be saved and finds no room.

        Raises:
            OSError: there is no room.
        """
        self._check(self._folder, self._need(weights_only=True), freed=self._freed)

    @contextmanager
    def saving(self, folder: Path, *, checkpoint: bool) -> Iterator[None]:
        """Look for room, then save; of a student that could not be saved whole nothing is left.

        Args:
            folder: that is written. One that was there stays, with what else is in it; a checkpoint
                is `Checkpoints`' to sweep.
            checkpoint: whether it is one, to go on from, or a student; within one, a part of it.

        Raises:
            OSError: there is no room; the message has path, and needed and free bytes.
        """
        if self._inside:
            yield
            return
        need, new = self._need(weights_only=not checkpoint), not folder.exists()
        self._check(folder, need)
        self._inside = True
        try:
            yield
        except Exception as error:
            if (problem := disk_problem(error)) is None:
                raise
            if new and not checkpoint:
                shutil.rmtree(folder, ignore_errors=True)
            missing = f"it needs about {need.all:,} bytes, and {free_bytes(folder):,} are free"
            raise OSError(errno.ENOSPC, f"{folder}: {problem}; {missing}") from error
        finally:
            self._inside = False

    def _check(self, folder: Path, need: Need, *, freed: int = 0) -> None:
        """Stop in all processes where one that saves has no room."""
        trainer = self._trainer
        missing = shortage(folder, need, freed) if trainer.args.should_save else None
        found = torch.tensor(float(missing is not None), device=trainer.accelerator.device)
        if cast(Tensor, trainer.accelerator.reduce(found, "sum")) > 0:
            raise OSError(errno.ENOSPC, missing or f"{folder}: another process has no room for it")

    @property
    def _folder(self) -> Path:
        return Path(cast(str, self._trainer.args.output_dir))

    @property
    def _freed(self) -> int:
        """Bytes of the run that this one is going to take the place of."""
        overwrites = getattr(self._trainer.args, "overwrite", False)
        return bytes_of_run(self._folder, BEST) if overwrites else 0

    def _need(self, *, weights_only: bool = False) -> Need:
        trainer = self._trainer
        lines = len(trainer.state.log_history)
        further = FURTHER_BYTES + LINE_BYTES * lines + TOKEN_BYTES * self._tokens
        student = cast(nn.Module, trainer.model)
        weights = _weights_bytes(student)
        if weights_only or trainer.args.save_only_model:
            return Need(weights + further, weights)
        if trainer.is_deepspeed_enabled:
            optimizer = DEEPSPEED_BYTES * sum(map(_numel, _trained(student)))
        else:
            optimizer = _optimizer_bytes(trainer.optimizer, small="8bit" in trainer.args.optim)
        mean = 0 if (average := self._average()) is None else average.bytes()
        kept = self._kept()
        files = (weights, optimizer, mean, kept)
        return Need(sum(files) + further, max(files))


def _saves(state: TrainerState, args: TrainingArguments) -> int:
    """How many checkpoints a run is going to write, about."""
    if args.save_strategy == "no":
        return 0
    if args.save_strategy == "epoch":
        return math.ceil(state.num_train_epochs)
    every = state.save_steps if args.save_strategy == "steps" else state.eval_steps
    return math.ceil((state.max_steps - state.global_step) / max(every or 1, 1))


def _weights_bytes(student: nn.Module) -> int:
    """Of those that are saved: an adapter's, or all; tied ones once."""
    if hasattr(student, "peft_config"):
        return _bytes(_trained(student))
    return _bytes(student.parameters()) + _bytes(student.buffers())


def _optimizer_bytes(optimizer: Any, *, small: bool) -> int:
    """Of its state; before the first step, of what it is going to be."""
    there = [v for state in optimizer.state.values() for v in state.values()]
    if there:
        return _bytes(value for value in there if isinstance(value, Tensor))
    expected = 0
    for group in optimizer.param_groups:
        moments = 2 if "betas" in group else int(bool(group.get("momentum")))
        expected += moments * sum(
            _numel(p) * (1 if small else p.element_size()) for p in group["params"]
        )
    return expected


def _trained(student: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in student.parameters() if parameter.requires_grad]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(_numel(tensor) * tensor.element_size() for tensor in tensors)


def _numel(tensor: Tensor) -> int:
    """Elements over all processes; DeepSpeed keeps the number where it has taken the tensor."""
    return getattr(tensor, "ds_numel", tensor.numel())
