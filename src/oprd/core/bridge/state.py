"""A fit that was interrupted: its statistics as tensors by name, and back."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from oprd.core.bridge.statistics import PairStatistics
from oprd.core.layers import LayerPair


def fit_state(sums: PairStatistics, reduced: bool) -> dict[str, Tensor]:
    """Copies of the sums with what they are of: tensors only, so that safetensors can hold them.

    Args:
        sums: the statistics so far.
        reduced: whether they are already those of all processes.
    """
    state = {name: tensor.clone() for name, tensor in sums.tensors().items()}
    return {**state, **_described(sums.pairs, (sums.count, sums.gradient_count, int(reduced)))}


def restore(sums: PairStatistics, state: Mapping[str, Tensor]) -> bool:
    """Fill fresh statistics from a state of `fit_state`, and say whether it was reduced.

    Raises:
        ValueError: the state is incomplete, not finite, or of other pairs or widths.
    """
    if "gradient_moment" in state:
        sums.start_gradients()
    expected = {**sums.tensors(), **_described(sums.pairs, (0, 0, 0))}
    if state.keys() != expected.keys():
        raise ValueError(f"the state of a fit holds {sorted(expected)}, got {sorted(state)}.")
    for name, tensor in expected.items():
        found = state[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise ValueError(
                f"{name} of the fit's state is {found.dtype} {tuple(found.shape)}, "
                f"this fit needs {tensor.dtype} {tuple(tensor.shape)}."
            )
        if not torch.isfinite(found).all():
            raise ValueError(f"{name} of the fit's state holds a NaN or an infinity.")
    if not torch.equal(state["pairs"].cpu(), expected["pairs"]):
        raise ValueError(
            f"the fit's state is of layer pairs {state['pairs'].tolist()}, "
            f"this fit has {expected['pairs'].tolist()}."
        )
    for name, tensor in sums.tensors().items():
        tensor.copy_(state[name])
    sums.count, sums.gradient_count, reduced = state["counts"].tolist()
    return bool(reduced)


def _described(pairs: Sequence[LayerPair], counts: tuple[int, int, int]) -> dict[str, Tensor]:
    return {
        "pairs": torch.tensor(pairs, dtype=torch.int64),
        "counts": torch.tensor(counts, dtype=torch.int64),
    }
