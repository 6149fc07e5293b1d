"""Supervised fine-tuning on given texts, for a teacher and for the student that is compared."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import get_cosine_schedule_with_warmup

from oprd.models.token_bytes import TokenBytes

# A prompt's tokens, and those of a response with its end.
Tokens = tuple[list[int], list[int]]


def sequences(tokenizer: Any, texts: Sequence[tuple[str, str]]) -> list[Tokens]:
    """Prompts and responses; a response's tokens are those of the rest of a text."""
    spelled = TokenBytes(tokenizer)
    return [
        (
            list(tokenizer(prompt)["input_ids"]),
            [*spelled.encode(response.encode()), tokenizer.eos_token_id],
        )
        for prompt, response in texts
    ]


def train(
    model: Any,
    given: Sequence[Tokens],
    *,
    steps: int,
    learning_rate: float,
    candidates: Tensor | None = None,
) -> float:
    """Train what of a model trains, in equal batches of what is given; processor seconds of it.

    Args:
        model: a causal language model, or one with an adapter.
        given: each is read once.
        steps: optimizer steps, under a cosine.
        learning_rate: its peak.
        candidates: tokens that the loss is over; None for all.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, learning_rate, weight_decay=0.0)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    body, head = whole.model, model.get_output_embeddings().weight
    numbers = torch.arange(len(head))
    if candidates is not None:
        numbers[candidates] = torch.arange(len(candidates))
    size = len(given) // steps
    began = time.process_time()
    for step in range(steps):
        batch = given[step * size : (step + 1) * size]
        longest = max(len(prompt) + len(response) for prompt, response in batch)
        ids, mask = torch.zeros(2, len(batch), longest, dtype=torch.long)
        predicts = torch.zeros(len(batch), longest, dtype=torch.bool)
        for row, (prompt, response) in enumerate(batch):
            length = len(prompt) + len(response)
            ids[row, :length] = torch.tensor([*prompt, *response])
            mask[row, :length] = 1
            predicts[row, len(prompt) - 1 : length - 1] = True
        states = body(input_ids=ids, attention_mask=mask).last_hidden_state[predicts]
        targets = numbers[[token for _, response in batch for token in response]]
        columns = head if candidates is None else head[candidates]
        loss = functional.cross_entropy(states @ columns.T, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if (step + 1) % 10 == 0 or step + 1 == steps:
            seconds = time.process_time() - began
            print(f"step {step + 1}: loss {loss.item():.4f}, {seconds:.0f} s", flush=True)
    return time.process_time() - began
