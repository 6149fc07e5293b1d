"""The memory that training holds at most, counted on shapes before a step is made.

Activations are those of a pass through the model, on tensors without values and in the precision
in which the run computes (see `oprd.models.counting`). Gradients, the optimizer's states, rows that
wait and the caches of rollouts are in the dtype of the weights; of the caches autocast would keep a
part in half of it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from oprd.core.capture import capture_states, decoder, hidden_size, num_layers
from oprd.models.counting import Live, bytes_of, tensors, without_values
from oprd.models.distributions import Distributions
from oprd.models.reading import base_forward
from oprd.text import one_line

Context = Callable[..., AbstractContextManager[Any]]

GIB = 2**30
WAYS_OUT = (
    "a smaller per_device_train_batch_size with more gradient_accumulation_steps, "
    "gradient_checkpointing, use_peft, or a shorter max_completion_length"
)
# States that an optimizer holds for a weight, in numbers of the weight's size; of others as of
# AdamW, the most that is usual.
MOMENTS = {"sgd": 1, "adafactor": 0.1, "lion_32bit": 1, "adagrad": 1, "rmsprop": 1}
ADAMW = 2
# Of float32, that drawing a token holds of its logits at once: themselves, sorted, with their
# indices, probabilities.
LOGITS = 6


@dataclass(frozen=True)
class Sizes:
    """Of what a run reads and writes.

    Attributes:
        batch: sequences of an update on one device.
        rollouts: that are written at once on one device.
        prompt: tokens of the longest prompt.
        response: tokens of the longest response.
        layers: of the student, whose states are compared.
        distributions: of next tokens that are compared; None where none are.
        checkpointing: options with which the student will train with gradient checkpointing; None
            where it will not.
        accumulates: whether the gradients of a micro-batch wait while the next one is read.
    """

    batch: int
    rollouts: int
    prompt: int
    response: int
    layers: Sequence[int]
    distributions: Distributions | None = None
    checkpointing: Mapping[str, Any] | None = None
    accumulates: bool = False

    @property
    def tokens(self) -> int:
        """Of a whole sequence."""
        return self.prompt + self.response


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device, by what holds them.

    Attributes:
        weights: of all models.
        optimizer: from the second step on.
        gradients: of what trains.
        activations: of the student's pass, with what autocast makes of its weights, beyond
            gradients.
        rows: the teacher's states that wait for the student's.
        rollout: caches and logits while responses are written.
        distributions: what comparing those of next tokens holds, see `Distributions`.
        copied: what trains, as it was, while the learning rate is searched before the first step.
    """

    weights: int
    optimizer: int
    gradients: int
    activations: int
    rows: int
    rollout: int
    distributions: int = 0
    copied: int = 0

    @property
    def update(self) -> int:
        """While the student learns, beyond weights and optimizer."""
        return self.gradients + self.activations + self.rows + self.distributions

    @property
    def coming(self) -> int:
        """The most that is held at once, beyond weights."""
        # The search writes before the optimizer has states; after it there is no copy.
        searching = self.copied + self.optimizer + self.update
        return max(searching, max(self.copied, self.optimizer) + self.rollout)

    @property
    def peak(self) -> int:
        """The most that is held at once."""
        return self.weights + self.coming


def estimate(
    student: nn.Module,
    readers: Iterable[nn.Module],
    sizes: Sizes,
    optimizer: str = "adamw_torch_fused",
    *,
    whole: bool = False,
    autocast: Context = nullcontext,
    searches: bool = False,
) -> Estimate:
    """What a run holds at most.

    Args:
        student: in the mode in which it trains; not wrapped.
        readers: its teachers and a reference; may share weights with it, or have none here.
        sizes: of its batches.
        optimizer: as `optim` names it.
        whole: count as if all of the student trained, whatever its parameters say.
        autocast: entered while a model reads, as in the run.
        searches: whether the run searches its learning rate before the first step.
    """
    readers = list(readers)
    gradients = bytes_of(p for p in student.parameters() if whole or p.requires_grad)
    passed = _peak(student, lambda model: _update(model, sizes, autocast), whole=whole, sizes=sizes)
    if not sizes.accumulates:
        # They are made within the pass, and count by themselves.
        passed = max(passed - gradients, 0)
    here = [reader for reader in readers if not next(reader.parameters()).is_meta]
    # Without a graph, a model that is no larger holds less than the student's update.
    own = bytes_of(student.parameters())
    larger = [reader for reader in here if bytes_of(reader.parameters()) > own]
    peaks = (_peak(reader, lambda model: _read(model, sizes, autocast)) for reader in larger)
    return Estimate(
        weights=bytes_of(tensor for model in (student, *here) for tensor in tensors(model)),
        optimizer=round(gradients * MOMENTS.get(optimizer, ADAMW)),
        gradients=gradients,
        activations=max(passed, max(peaks, default=0)),
        rows=_rows(readers, sizes),
        rollout=_rollout(student, sizes),
        distributions=_distributions(student, readers, sizes, whole=whole),
        copied=gradients if searches else 0,
    )


def free_bytes(device: torch.device) -> int:
    """What is left on a device, or of this machine's memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def told(need: Estimate, free: int) -> tuple[str, bool]:
    """One sentence on what a run needs beside its models, and whether it fits."""
    beside = [("optimizer, from step 2,", need.optimizer)]
    if need.copied:
        # The search steps the optimizer too.
        beside = [
            ("optimizer", need.optimizer),
            ("a copy of what trains while learning_rate auto is found", need.copied),
        ]
    parts: Sequence[tuple[str, int]] = [
        *beside,
        ("gradients", need.gradients),
        ("activations", need.activations),
        ("the teacher's states", need.rows),
        *([("distributions", need.distributions)] if need.distributions else []),
    ]
    if need.coming > sum(size for _, size in parts):
        parts = [max(beside, key=lambda part: part[1]), ("writing rollouts", need.rollout)]
    said = ", ".join(f"{name} {_gib(size)}" for name, size in parts)
    fits = need.coming <= free
    text = (
        f"Memory: models {_gib(need.weights)} GiB; steps need {_gib(need.coming)} GiB more ({said})"
        f", and {_gib(free)} GiB are free."
    )
    return (text if fits else f"{text} This is not enough: try {WAYS_OUT}."), fits


def not_known(error: Exception) -> str:
    """The same where a model's code cannot be run without values."""
    return f"Memory: not known before the first step ({one_line(error)})."


def _gib(size: int) -> str:
    return f"{size / GIB:.2g}" if size < 10 * GIB else f"{size / GIB:.0f}"


def _update(model: nn.Module, sizes: Sizes, autocast: Context) -> None:
    """A forward and a backward pass that supervise all of the response."""
    supervised = slice(sizes.prompt - 1, -1)
    captured = capture_states(model, sizes.layers, supervised, lambda _, rows: _square(rows))
    with autocast(), captured as terms:
        _forward(model, sizes.batch, sizes.tokens)
    total = torch.stack(list(terms.values())).sum()
    # A head that trains alone is reached by no state.
    if total.requires_grad:
        total.backward()


def _square(rows: Tensor) -> Tensor:
    return (rows.float() ** 2).sum()


def _read(model: nn.Module, sizes: Sizes, autocast: Context) -> None:
    """A forward pass without a graph."""
    with torch.no_grad(), autocast():
        _forward(model, sizes.batch, sizes.tokens)


def _forward(model: nn.Module, batch: int, tokens: int) -> None:
    ids = torch.zeros(batch, tokens, dtype=torch.long, device=next(model.parameters()).device)
    base_forward(model, ids, torch.ones_like(ids))


def _peak(
    model: nn.Module,
    run: Callable[[nn.Module], None],
    *,
    whole: bool = False,
    sizes: Sizes | None = None,
) -> int:
    """Bytes that a pass of a model makes at most, gradients among them that were not there."""
    mode = FakeTensorMode()
    shapes = without_values(model, mode)
    if sizes is not None and sizes.checkpointing is not None:
        # A trainer turns it on when it begins to train.
        shapes.gradient_checkpointing_enable(dict(sizes.checkpointing) or None)
        shapes.train()
    if whole:
        shapes.requires_grad_(True)
    there = [*tensors(shapes)]
    if sizes is not None and sizes.accumulates:
        with mode:
            for weight in shapes.parameters():
                weight.grad = torch.empty_like(weight) if weight.requires_grad else None
        there += [weight.grad for weight in shapes.parameters() if weight.grad is not None]
    with mode, Live(there) as live:
        run(shapes)
    return live.peak


def _distributions(
    student: nn.Module, readers: Sequence[nn.Module], sizes: Sizes, *, whole: bool
) -> int:
    if sizes.distributions is None:
        return 0
    return sizes.distributions.held(student, readers, sizes.batch * sizes.response, whole=whole)


def _rows(readers: Sequence[nn.Module], sizes: Sizes) -> int:
    """Of the teacher that is widest."""
    count = sizes.batch * sizes.response * len(sizes.layers)
    sizes_of_row = (hidden_size(reader) * _element(reader) for reader in readers)
    return count * max(sizes_of_row, default=0)


def _rollout(student: nn.Module, sizes: Sizes) -> int:
    """Keys and values of all tokens, and the logits of one position."""
    config: Any = decoder(student).config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * num_layers(student) * heads * width * _element(student)
    logits = LOGITS * 4 * config.vocab_size
    return sizes.rollouts * (token * sizes.tokens + logits)


def _element(model: nn.Module) -> int:
    return next(model.parameters()).element_size()
