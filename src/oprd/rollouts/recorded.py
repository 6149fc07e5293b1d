"""How likely a student's tokens were to it as it drew them, read off its own logits.

Letters: B sequences, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Recorder:
    """Listens to a model while Transformers' `generate` writes with it.

    Every forward pass of it is given the token that was drawn from the one before. So only one
    step's [B, V] log-probabilities are kept at a time, and nothing is computed twice.

    Args:
        temperature: divides the logits.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature
        self._last: Tensor | None = None
        self._tokens: list[Tensor] = []
        self._found: list[Tensor] = []

    @contextmanager
    def listening(self, model: nn.Module) -> Iterator[None]:
        """Entered while the model writes a batch."""
        # PEFT lets the model under its adapter write.
        inner: Any = model.get_base_model() if hasattr(model, "get_base_model") else model  # pyright: ignore[reportCallIssue]
        handle = inner.register_forward_hook(self._hear, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def _hear(self, _model: nn.Module, _args: Any, given: dict[str, Any], output: Any) -> None:
        drawn = given["input_ids"][:, -1:]
        if self._last is not None and len(self._last) == len(drawn):
            self._tokens.append(drawn)
            self._found.append(self._last.gather(1, drawn))
        self._last = (output.logits[:, -1].float() / self._temperature).log_softmax(dim=-1)

    def of(self, responses: Sequence[Sequence[int]]) -> list[Tensor | None]:
        """The log-probabilities of what came back; None where it is not what was heard."""
        if self._last is None or len(self._last) != len(responses):
            return [None] * len(responses)
        last = self._last.cpu()
        none = torch.zeros(len(responses), 0)
        tokens = torch.cat([none.long(), *(drawn.cpu() for drawn in self._tokens)], dim=1)
        found = torch.cat([none, *(part.cpu() for part in self._found)], dim=1)

        def one(row: int, ids: Sequence[int]) -> Tensor | None:
            heard = min(len(ids), tokens.shape[1])
            if len(ids) - heard > 1 or tokens[row, :heard].tolist() != list(ids[:heard]):
                return None
            # The last one that was drawn was given to no further pass.
            return torch.cat([found[row, :heard], last[row, list(ids[heard:])]])

        return [one(row, ids) for row, ids in enumerate(responses)]
