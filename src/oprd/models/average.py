"""A teacher that follows its student: the exponential moving average of what trains.

After each optimizer step a ← d · a + (1 − d) · w, in float32, for every trainable weight w. Of LoRA
these are A and B one by one: the product of their means is not the mean of their products.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from oprd.models.shared_base import adapter_name, adapter_pairs
from oprd.runs.atomic import written_whole

# In a checkpoint.
FILE = "teacher_average.safetensors"
# What wrappers put into the names of weights.
WRAPPERS = ("_checkpoint_wrapped_module.", "_orig_mod.")


class Followed(NamedTuple):
    """A weight that trains, and the teacher's of the same name."""

    name: str
    student: Tensor
    teacher: Tensor


class MovingAverage(TrainerCallback):
    """Moves the teacher towards the student after each optimizer step.

    Args:
        student: the model that trains, asked for when it is needed: what places it may replace its
            weights.
        teacher: likewise; the student where an adapter on its base is the teacher.
        decay: d, from 0 to below 1.
        name: of the teacher among several.
    """

    def __init__(
        self,
        student: Callable[[], nn.Module],
        teacher: Callable[[], nn.Module],
        decay: float,
        name: str = "",
    ) -> None:
        self._student, self._teacher, self._decay = student, teacher, decay
        self._adapter = adapter_name(name)
        # Of weights in another dtype than float32 the mean stands here.
        self._exact: dict[str, Tensor] = {}

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See the class."""
        self.update()

    @torch.no_grad()
    def update(self) -> None:
        """Take the student's weights into the mean."""
        for followed in self._followed():
            mean = self._mean(followed)
            # A teacher that waits on the CPU is there between its readings.
            now = followed.student.detach().to(mean.device, mean.dtype)
            mean.lerp_(now, 1 - self._decay)
            if mean is not followed.teacher:
                followed.teacher.copy_(mean)

    def save(self, checkpoint: Path, *, write: bool) -> None:
        """Keep the mean in a checkpoint; every process calls it, and one writes.

        Args:
            checkpoint: the folder.
            write: whether this process does.
        """
        means = {followed.name: _whole(self._mean(followed)) for followed in self._followed()}
        if write:
            with written_whole(checkpoint / FILE) as file:
                # Not safetensors' save_file, which sets mode 0600 whatever the umask says.
                file.write_bytes(save({name: m.cpu().contiguous() for name, m in means.items()}))

    def bytes(self) -> int:
        """Of its file in a checkpoint, but for names."""
        means = ((f.student.numel(), f.teacher.element_size()) for f in self._followed())
        # Kept in float32 at least.
        return sum(count * max(size, 4) for count, size in means)

    @torch.no_grad()
    def resume(self, checkpoint: Path) -> None:
        """Go on with the mean of a checkpoint.

        Raises:
            ValueError: it holds none, or that of other weights.
        """
        try:
            means = load_file(checkpoint / FILE)
        except (OSError, SafetensorError) as error:
            raise ValueError(
                f"checkpoint {str(checkpoint)!r} holds no moving average of the teacher that can "
                f"be read ({FILE}: {error}): teacher_source='ema' cannot go on from it."
            ) from error
        followed = list(self._followed())
        if {name: tuple(mean.shape) for name, mean in means.items()} != {
            one.name: tuple(one.student.shape) for one in followed
        }:
            raise ValueError(
                f"{FILE} in checkpoint {str(checkpoint)!r} is the mean of other weights than those "
                "that train here."
            )
        for one in followed:
            mean = self._mean(one)
            mean.copy_(_like(means[one.name].to(mean.device), mean))
            if mean is not one.teacher:
                one.teacher.copy_(mean)

    def _mean(self, followed: Followed) -> Tensor:
        teacher = followed.teacher
        if teacher.dtype in (torch.float32, torch.float64):
            return teacher
        return self._exact.setdefault(followed.name, teacher.detach().float())

    def _followed(self) -> Iterator[Followed]:
        student, teacher = self._student(), self._teacher()
        if student is teacher:
            for name, (own, teachers) in adapter_pairs(student, self._adapter).items():
                yield Followed(_plain(name), own, teachers)
            return
        means = {_plain(name): parameter for name, parameter in teacher.named_parameters()}
        for name, parameter in student.named_parameters():
            if parameter.requires_grad:
                yield Followed(_plain(name), parameter, means[_plain(name)])


def check_can_follow(accelerator: Accelerator) -> None:
    """Refuse, with a ValueError, weights that are in pieces without names."""
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    deepspeed = getattr(accelerator.state, "deepspeed_plugin", None)
    if deepspeed is not None or (plugin is not None and plugin.fsdp_version == 1):
        raise ValueError(
            "teacher_source='ema' averages weights by name, which DeepSpeed and FSDP1 keep in "
            "pieces without one: use DDP or FSDP2."
        )


def _plain(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(tensor: Tensor, other: Tensor) -> Tensor:
    """A whole tensor, in pieces where the other one is."""
    if isinstance(other, DTensor):
        return distribute_tensor(tensor.to(other.dtype), other.device_mesh, other.placements)
    return tensor
