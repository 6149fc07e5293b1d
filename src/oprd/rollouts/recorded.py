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
        # Of the batch, those that are written on.
        self._rows: Tensor | None = None
        self._count = 0
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

    def go_on(self, drawn: Tensor, rows: Tensor) -> None:
        """Some rows are written on by another call.

        Args:
            drawn: [B, 1], the tokens that the call before drew last.
            rows: of those that it wrote, the ones that go on.
        """
        self._note(drawn)
        # The next pass is given the same tokens.
        self._last = None
        if self._rows is not None:
            self._rows = self._rows[rows.to(self._rows.device)]

    @torch.no_grad()
    def _hear(self, _model: nn.Module, _args: Any, given: dict[str, Any], output: Any) -> None:
        drawn = given["input_ids"][:, -1:]
        if self._rows is None:
            self._count = len(drawn)
            self._rows = torch.arange(len(drawn), device=drawn.device)
        self._note(drawn)
        self._last = (output.logits[:, -1].float() / self._temperature).log_softmax(dim=-1)

    def _note(self, drawn: Tensor) -> None:
        """Keep a token of each row that is written, and how likely it was."""
        if self._last is None or self._rows is None or len(self._last) != len(drawn):
            return
        token = torch.full((self._count, 1), -1, device=drawn.device, dtype=drawn.dtype)
        log_prob = torch.zeros(self._count, 1, device=drawn.device)
        token[self._rows], log_prob[self._rows] = drawn, self._last.gather(1, drawn)
        self._tokens.append(token)
        self._found.append(log_prob)

    def of(self, responses: Sequence[Sequence[int]]) -> list[Tensor | None]:
        """The log-probabilities of what came back; None where it is not what was heard."""
        if self._rows is None or self._count != len(responses):
            return [None] * len(responses)
        none = torch.zeros(len(responses), 0)
        tokens = torch.cat([none.long(), *(drawn.cpu() for drawn in self._tokens)], dim=1)
        found = torch.cat([none, *(part.cpu() for part in self._found)], dim=1)
        # The last one that was drawn was given to no further pass.
        last = None if self._last is None else self._last.cpu()
        places = {row: place for place, row in enumerate(self._rows.tolist())}

        def one(row: int, ids: Sequence[int]) -> Tensor | None:
            heard = min(len(ids), tokens.shape[1])
            rest = list(ids[heard:])
            unheard = len(rest) > 1 or (rest and (last is None or row not in places))
            if unheard or tokens[row, :heard].tolist() != list(ids[:heard]):
                return None
            ends = [] if last is None or not rest else [last[places[row], rest]]
            return torch.cat([found[row, :heard], *ends])

        return [one(row, ids) for row, ids in enumerate(responses)]
