"""What a pass over chunks of rows holds, counted beforehand and as it lives."""

import pytest
import torch

from oprd.core.objective import OUTPUT_LOSSES
from oprd.core.output import head as heads
from oprd.core.output.chunk import held
from oprd.core.output.chunked import sum_loss
from oprd.core.output.classes import Classes
from oprd.core.output.head import LMHead
from oprd.core.output.pair import Pair, select_pair
from oprd.models.counting import Live

N, WIDTH = 40, 8
OURS, THEIRS, CLASSES = 3000, 5000, 2500


def pair(classes: int | None, softcap: float | None) -> Pair:
    """Two models at N rows."""
    generator = torch.Generator().manual_seed(0)
    sizes = OURS, OURS if classes is None else THEIRS
    rows = [torch.randn(N, WIDTH, generator=generator) for _ in sizes]
    weights = [torch.randn(size, WIDTH, generator=generator) for size in sizes]
    own = [LMHead(weight, softcap=softcap) for weight in weights]
    rows[0].requires_grad_()
    own[0].weight.requires_grad_()
    if classes is not None:
        members = [torch.randint(classes, (size,), generator=generator) for size in sizes]
        classes = Classes(members[0], members[1], classes)
    mask, ids = torch.ones(1, N, dtype=torch.bool), torch.zeros(1, N, dtype=torch.long)
    return select_pair(*rows, *own, mask, 1.0, ids, classes=classes)


def lived(made: Pair, loss) -> int:
    """Elements of a loss and its backward pass, without the gradients."""
    with Live() as live:
        # What is there already is seen as it is looked at.
        there = [made.student_rows, made.teacher_rows]
        there += [made.student_head.weight, made.teacher_head.weight]
        if made.classes is not None:
            there += [made.classes.student, made.classes.teacher]
        for tensor in there:
            tensor.detach()
        before = live.peak
        sum_loss(made, loss, "sequence").total.backward()
    return (live.peak - before) // 4 - OURS * WIDTH - N * WIDTH


@pytest.mark.parametrize("softcap", [None, 5.0])
@pytest.mark.parametrize("rows", [7, N])
@pytest.mark.parametrize(
    ("name", "classes"),
    [
        *((name, None) for name in OUTPUT_LOSSES),
        *((name, CLASSES) for name, loss in OUTPUT_LOSSES.items() if loss.whole),
    ],
)
def test_what_is_counted_is_what_lives(name, rows, classes, softcap, monkeypatch):
    loss = OUTPUT_LOSSES[name]()
    sizes = OURS, OURS if classes is None else THEIRS
    monkeypatch.setattr(heads, "CHUNK_ELEMENTS", rows * max(sizes))
    counted = held(N, sizes, classes, capped=softcap is not None, spare=loss.spare)
    found = lived(pair(classes, softcap), loss)
    # A loss on single tokens, and a skewed one, hold a buffer or two less.
    least = 0.95 if name in ("reverse_kl", "forward_kl", "jsd") else 0.3
    assert least * counted < found < 1.05 * counted
