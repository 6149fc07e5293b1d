"""A rollout engine whose completions are of the prompts that it was asked for."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any


def in_order(generate: Callable[..., Any]) -> Callable[..., Any]:
    """The `generate` of TRL's engine, whose completions TRL takes in the order in which they come.

    Args:
        generate: takes `prompts` as token ids, and `images`, by name; returns the prompts that it
            read first, and then their completions.

    Raises:
        RuntimeError: when it is called, a completion is of another prompt.
    """

    @wraps(generate)
    def checked(*, prompts: Sequence[Sequence[int]], images: Any = None, **options: Any) -> Any:
        found = generate(prompts=prompts, images=images, **options)
        read = found[0]
        # An engine writes pictures' places out. Fewer completions are counted where all end up.
        if images is None and read is not None and len(read) == len(prompts):
            pairs = zip(prompts, read, strict=True)
            other = next((n for n, (p, r) in enumerate(pairs, 1) if list(p) != list(r)), None)
            if other is not None:
                raise RuntimeError(
                    f"completion {other} of {len(prompts)} is of another prompt than was asked "
                    "for: the rollout engine has lost their order. See its log."
                )
        return found

    return checked
