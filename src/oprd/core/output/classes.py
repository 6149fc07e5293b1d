"""Two vocabularies, compared over classes of tokens that begin the same text.

A class has the tokens of either model that are one action to the other: probabilities within it are
added, and losses compare two distributions over classes,

    z_c = log Σ_{v ∈ c} exp z_v,        ∂L/∂z_v = ∂L/∂z_c · exp(z_v − z_c)

Tokens of no class are left out of both distributions, which are renormalised without them.

Letters: n rows, V vocabulary, C classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Classes:
    """To which class each token belongs.

    Attributes:
        student: [V of the student], integers in 0..count; `count` itself is no class.
        teacher: [V of the teacher], likewise.
        count: C.

    Raises:
        ValueError: a class is out of bounds, or there are fewer than two.
    """

    student: Tensor
    teacher: Tensor
    count: int

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(
                f"distributions over {self.count} classes of tokens are all alike: the two "
                "vocabularies have no text in common."
            )
        for name in ("student", "teacher"):
            members: Tensor = getattr(self, name)
            if members.ndim != 1 or members.is_floating_point():
                raise ValueError(
                    f"classes of the {name}'s tokens must be integers [V], got {members.dtype} "
                    f"{list(members.shape)}."
                )
            if len(members) and not 0 <= members.min() <= members.max() <= self.count:
                raise ValueError(
                    f"classes of the {name}'s tokens must be in 0..{self.count}, got "
                    f"{members.min()}..{members.max()}."
                )

    def to(self, device: torch.device) -> "Classes":
        """The same on a device."""
        return Classes(self.student.to(device), self.teacher.to(device), self.count)


def merge(logits: Tensor, members: Tensor, out: Tensor) -> Tensor:
    """Logits of classes, up to one number a row.

    Args:
        logits: [n, V]; overwritten by exp(z − max z), zero at tokens of no class.
        members: [V], the class of each token; C for none.
        out: [n, C + 1], uninitialised; sums of the exponentials are left in it.

    Returns:
        [n, C]. That of a class without a token is so low that its probability is zero, yet finite.
    """
    count = out.shape[1] - 1
    # Those of no class may be so likely that nothing would be left of the others.
    logits.index_fill_(1, (members == count).nonzero()[:, 0], torch.finfo(logits.dtype).min / 4)
    exponentials = logits.sub_(logits.amax(dim=1, keepdim=True)).exp_()
    out.zero_().index_add_(1, members, exponentials)
    return out.clamp_(min=torch.finfo(out.dtype).tiny)[:, :-1].log()


def spread(slope: Tensor, members: Tensor, exponentials: Tensor, sums: Tensor) -> Tensor:
    """∂/∂ logits of classes [n, C] as ∂/∂ logits [n, V], which takes the exponentials' place.

    Args:
        slope: [n, C].
        members: [V].
        exponentials: [n, V], those that `merge` left.
        sums: [n, C + 1], likewise.
    """
    shares = torch.nn.functional.pad(slope / sums[:, :-1], (0, 1))
    return exponentials.mul_(shares.index_select(1, members))
