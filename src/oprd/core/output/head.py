"""The LM head: from last hidden states to next-token logits, some rows at a time.

    logits = softcap · tanh(scale · (h Wᵀ + b) / softcap) / temperature

Weights are read in the states' dtype, products are accumulated and returned in float32: logits
rounded to bfloat16 carry errors of several hundredths, more than the divergence of two models that
have come close.

Letters: N rows, V vocabulary, D width, M ids looked at in each row.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

CHUNK_ELEMENTS = 2**24
"""Most elements of a tensor that lives for one chunk (64 MB in float32; a few exist at a time).

Larger chunks read and update the head less often, smaller ones hold less: from here on time gains
little, and memory grows in proportion.
"""

_HALVES = (torch.float16, torch.bfloat16)
# Powers of two: what a gradient's largest entry is brought to where it is rounded to float16, which
# ends at 2^16, and the most that it is multiplied by, so that sums in float32 stay finite.
_LARGEST, _MOST = 14, 60


@dataclass(frozen=True, eq=False)
class LMHead:
    """What turns a last hidden state into logits, in the order in which models do it.

    Attributes:
        weight: [V, D].
        bias: [V], if there is one.
        scale: multiplies the product (Cohere's `logit_scale`; 1 / Granite's `logits_scaling`).
        softcap: bounds the scaled logits (Gemma's `final_logit_softcapping`).

    Raises:
        ValueError: a shape is not as above, or `softcap` is not positive.
    """

    weight: Tensor
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.weight, Tensor) or self.weight.ndim != 2:
            found = getattr(self.weight, "shape", type(self.weight).__name__)
            raise ValueError(f"a head's weight is a tensor [V, width], got {found}.")
        if self.bias is not None and self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"a head's bias is [V] = [{len(self.weight)}], got shape {tuple(self.bias.shape)}."
            )
        if self.softcap is not None and not self.softcap > 0:
            raise ValueError(f"softcap must be positive, or None for no cap, got {self.softcap}.")

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        """D."""
        return self.weight.shape[1]

    def detach(self) -> "LMHead":
        """The same head without a graph."""
        bias = None if self.bias is None else self.bias.detach()
        return LMHead(self.weight.detach(), bias, self.scale, self.softcap)

    def cut(self, vocab_size: int) -> "LMHead":
        """The head over the first `vocab_size` tokens alone; the same where it has no more."""
        if vocab_size >= self.vocab_size:
            return self
        bias = None if self.bias is None else self.bias[:vocab_size]
        return LMHead(self.weight[:vocab_size], bias, self.scale, self.softcap)

    def take(self, ids: Tensor) -> "LMHead":
        """The head over some tokens alone, by their ids [v], in their order."""
        ids = ids.to(self.weight.device)
        bias = None if self.bias is None else self.bias[ids]
        return LMHead(self.weight[ids], bias, self.scale, self.softcap)

    def to(self, device: torch.device) -> "LMHead":
        """The head on a device."""
        bias = None if self.bias is None else self.bias.to(device)
        return replace(self, weight=self.weight.to(device), bias=bias)

    def logits(self, rows: Tensor, temperature: float = 1.0, *, out: Tensor) -> Tensor:
        """Write the logits of rows [N, D] to `out`, [N, V] float32 or float64, without a graph."""
        for tile in chunks(*self.weight.shape):
            add_product(out[:, tile], rows, self.weight[tile].to(rows.dtype).T, onto=0)
        if self.bias is not None:
            out += self.bias
        return self._finish(out, temperature)

    def logits_at(self, rows: Tensor, ids: Tensor, temperature: float = 1.0) -> Tensor:
        """[N, M] logits of rows [N, D] at ids [N, M] alone, in float32 or float64."""
        dtype = torch.promote_types(rows.dtype, torch.float32)
        products = rows.new_empty(ids.shape, dtype=dtype)
        for part in chunks(len(rows), ids.shape[1] * self.width):
            looked_at = self.weight[ids[part]].to(dtype)
            products[part] = (looked_at @ rows[part, :, None].to(dtype)).squeeze(2)
        if self.bias is not None:
            products += self.bias[ids]
        return self._finish(products, temperature)

    def derivative(self, logits: Tensor | None, temperature: float = 1.0) -> Tensor | float:
        """∂ logits / ∂ (h Wᵀ + b), elementwise; without a softcap one number for all `logits`."""
        if self.softcap is None or logits is None:
            return self.scale / temperature
        capped = (logits * (temperature / self.softcap)).square_()
        return capped.neg_().add_(1).mul_(self.scale / temperature)

    def _finish(self, products: Tensor, temperature: float) -> Tensor:
        if self.softcap is None:
            factor = self.scale / temperature
            return products if factor == 1 else products.mul_(factor)
        capped = products.mul_(self.scale / self.softcap).tanh_()
        return capped.mul_(self.softcap / temperature)


def as_head(head: LMHead | Tensor) -> LMHead:
    """A head from its weight alone, or as it is."""
    return head if isinstance(head, LMHead) else LMHead(head)


def chunk_length(width: int) -> int:
    """The most rows of a width that stay within the budget."""
    return max(1, CHUNK_ELEMENTS // max(1, width))


def chunks(length: int, width: int) -> Iterator[slice]:
    """Cut 0..`length` into equal slices so that slice × `width` stays within the budget."""
    count = -(-length // chunk_length(width))
    for i in range(count):
        yield slice(i * length // count, (i + 1) * length // count)


def add_product(out: Tensor, left: Tensor, right: Tensor, onto: float = 1.0) -> None:
    """`out` = `onto` · `out` + `left` @ `right`, accumulated in `out`'s dtype.

    Half-precision factors on a GPU go to its half-precision matrix units, which accumulate in
    float32; `left` may be float32 there (a gradient), and is rounded.
    """
    if out.is_cuda and right.dtype in _HALVES:
        add_half_product(out, left, right, onto)
    else:
        torch.addmm(out, left.to(out.dtype), right.to(out.dtype), beta=onto, out=out)


def add_half_product(out: Tensor, left: Tensor, right: Tensor, onto: float = 1.0) -> None:
    """The same of a factor `right` in half precision, on a GPU.

    A gradient is divided by the number of tokens, and float16 has nothing below 2^-24: it is
    multiplied by a power of two before it is rounded, and so is `out` while the product is added.
    The scale of a loss goes in after these sums, which is too late.
    """
    if right.dtype != torch.float16 or left.dtype == torch.float16:
        left = left.to(right.dtype)
        torch.addmm(out, left, right, beta=onto, out_dtype=out.dtype, out=out)
        return
    factor = power_of_two(left)
    left = torch.mul(left, factor, out=torch.empty_like(left, dtype=torch.float16))
    torch.addmm(out.mul_(factor), left, right, beta=onto, out_dtype=out.dtype, out=out)
    out.div_(factor)


def power_of_two(gradient: Tensor) -> Tensor:
    """What brings a gradient's largest entry to between 2^14 and 2^15, without a wait for it."""
    largest = torch.linalg.vector_norm(gradient, torch.inf)
    return (_LARGEST - largest.log2().floor()).clamp(max=_MOST).exp2()
