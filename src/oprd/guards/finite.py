"""A run in which something is not finite stops before the step, in all processes alike.

What is looked at is there anyhow: sums of a step over processes, the norm of the gradient, and the
weights as they are saved. Where nothing is broken, a micro-batch never waits for the device; a step
waits twice, for its sums, which are logged, and for its norm; a save waits once for the weights.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from transformers import Trainer

from oprd.guards.broken import BROKEN, STUDENT, BrokenBatch
from oprd.models.finite import first_broken_gradient, first_broken_parameter

UNTOUCHED = "The student was left as it was."


class Finite:
    """Stops a run, names what is not finite, and keeps the batch that did it.

    Args:
        trainer: of the run.
        teachers: the models as they are now, by what messages call them.
        batch: of the step, without what the guard knows itself: said, step and rank are given.
    """

    def __init__(
        self,
        trainer: Trainer,
        teachers: Callable[[], Mapping[str, nn.Module]],
        batch: Callable[[str, int, int], BrokenBatch],
    ) -> None:
        self._trainer, self._teachers, self._batch = trainer, teachers, batch

    def check_sums(
        self, broken: Sequence[str], own: Callable[[], Sequence[str]], *, keep: bool
    ) -> None:
        """Before the update of a step, or in an evaluation.

        Args:
            broken: states by model and layer, or losses, that are not finite in some process.
            own: finds those of this process.
            keep: whether the batch is one of the run's.

        Raises:
            FloatingPointError: there are some.
        """
        if not broken:
            return
        what = "a loss that is" if broken[0].startswith("loss/") else "states that are"
        trains = cast(nn.Module, self._trainer.model).training
        when = "before the update of" if trains else "in evaluation after"
        step = self._trainer.state.global_step + trains
        # Finite in each process, they may not be so together.
        where = self._where(own()) or f"{', '.join(broken)} over all ranks"
        said = f"{what} not finite {when} step {step}: {where}."
        self._stop(f"{said} {UNTOUCHED}", keep=keep and trains)

    def clip(self, model: nn.Module, most: float | None) -> Tensor | None:
        """Clip gradients by a norm that is finite: by another, all of them would be broken.

        Args:
            model: wrapped as it trains.
            most: the norm that is let through; None for any.

        Returns:
            the norm, as Accelerate's `clip_grad_norm_` has it; None where the norm is not one of
            PyTorch's alone, and nothing was done.

        Raises:
            FloatingPointError: it is not finite; the message names parameters.
        """
        accelerator, parameters = self._trainer.accelerator, list(model.parameters())
        grads = [p.grad for p in parameters if p.grad is not None]
        meshes = {grad.device_mesh if isinstance(grad, DTensor) else None for grad in grads}
        kind = accelerator.distributed_type.value
        sharded = kind == "FSDP" and not accelerator.is_fsdp2
        if self._trainer.args.fp16 or sharded or kind in ("DEEPSPEED", "XLA") or len(meshes) != 1:
            return None
        norm = get_total_norm(grads)
        self.check_norm(norm)
        if most is not None:
            clip_grads_with_norm_(parameters, most, norm)
        return norm

    def check_norm(self, norm: Any) -> None:
        """On the gradient's way to the optimizer.

        Under float16, gradients that overflow are the loss scaler's to skip.

        Raises:
            FloatingPointError: the norm is not finite.
        """
        trainer = self._trainer
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        if norm is None or trainer.args.fp16 or torch.isfinite(torch.as_tensor(norm)):
            return
        student = cast(nn.Module, trainer.model)
        named = [found] if (found := first_broken_gradient(student)) else []
        where = self._where(named)
        said = f"the gradient is not finite at step {trainer.state.global_step + 1} (norm {norm})"
        said += f": {where}." if where else "."
        # DeepSpeed has stepped by now.
        stepped = trainer.is_deepspeed_enabled
        self._stop(said if stepped else f"{said} {UNTOUCHED}", keep=not stepped)

    def check_student(self) -> None:
        """After a step, before the student is saved.

        Raises:
            FloatingPointError: a weight is not finite, in some process.
        """
        trainer = self._trainer
        broken = first_broken_parameter(cast(nn.Module, trainer.model))
        found = torch.tensor(float(broken is not None), device=trainer.accelerator.device)
        if cast(Tensor, trainer.accelerator.reduce(found, "sum")) > 0:
            where = self._where([broken] if broken else [])
            raise FloatingPointError(
                f"the student's {where} is not finite after step {trainer.state.global_step}: it "
                "is not saved. Look at the optimizer's settings (learning_rate, weight_decay, "
                "max_grad_norm), and go on from an earlier checkpoint."
            )

    def _where(self, own: Iterable[str]) -> str:
        """What is broken by rank, from what is in each process; "" for nothing anywhere."""
        ranks: dict[str, list[int]] = {}
        for rank, names in enumerate(gather_object([list(own)])):
            if names:
                ranks.setdefault(", ".join(names), []).append(rank)
        return "; ".join(
            f"{names} on rank {' and '.join(map(str, at))}" for names, at in ranks.items()
        )

    def _stop(self, said: str, *, keep: bool) -> NoReturn:
        weights = {}
        for role, model in {"student": self._trainer.model, **self._teachers()}.items():
            named = first_broken_parameter(cast(nn.Module, model))
            weights[role] = self._where([f"the {role}'s {named}"] if named else [])
        if broken := [where for where in weights.values() if where]:
            said += f" Not finite are weights: {'; '.join(broken)}."
        if keep:
            said += self._keep(said, student=not weights["student"])
        raise FloatingPointError(said)

    def _keep(self, said: str, *, student: bool) -> str:
        trainer = self._trainer
        step, rank = trainer.state.global_step + 1, trainer.accelerator.process_index
        folder = Path(cast(str, trainer.args.output_dir)) / BROKEN / f"step-{step:06d}"
        failed = _error_of(lambda: self._batch(said, step, rank).save(folder))
        # To save the student takes all of them.
        together = [error for error in gather_object([failed]) if error]
        if student and not together:
            save = partial(trainer.save_model, str(folder / STUDENT), _internal_call=True)
            together = [error] if (error := _error_of(save)) else []
        if together:
            return f" Its batch could not be kept: {failed or together[0]}."
        return f" Its batch is kept: oprd doctor --replay {folder}"


def _error_of(write: Callable[[], object]) -> str | None:
    """What kept files from being written, None where they are."""
    try:
        write()
    except (OSError, SafetensorError) as error:
        return str(error)
    return None
