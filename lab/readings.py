"""Rollouts of a student, and the states of both models while they read them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from lab.pairs import Pair
from oprd.core.capture import num_layers
from oprd.core.layers import select_layers
from oprd.core.reduction import supervised_count
from oprd.models.batch import MicroBatch
from oprd.models.generate import (
    Request,
    TransformersEngine,
    evaluation_mode,
    left_pad,
)
from oprd.models.load import load_model
from oprd.models.prompt import Prompt, render_prompt
from oprd.models.reading import read
from oprd.models.sampling import Sampling

# The seed of a rollout is that of a sample of this "task".
SEED_NAME = "readings"


class Models(NamedTuple):
    """A student and a teacher of one tokenizer, in evaluation mode."""

    student: Any
    teacher: Any
    tokenizer: PreTrainedTokenizerBase


def load_models(student: Path, teacher: Path) -> Models:
    """Load two models from their folders."""
    model, tokenizer = load_model(str(student))
    return Models(model, load_model(str(teacher))[0], tokenizer)


def held_out_prompts(pair: Pair, count: int) -> list[Prompt]:
    """The first held-out problems of a pair's task."""
    return [prompt for prompt, _ in pair.task_module.examples("test", count, seed=0)]


def read_student(pair: Pair, folder: Path, rollouts: int) -> tuple[Models, MicroBatch]:
    """A pair's student in a folder beside its teacher, and what it writes on held-out problems."""
    models = load_models(folder, pair.teacher.path())
    prompts = held_out_prompts(pair, rollouts)
    limit = pair.task_module.LONGEST_RESPONSE
    return models, write_rollouts(models.student, models.tokenizer, prompts, limit, seed=0)


def write_rollouts(
    model: Any, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt], limit: int, seed: int
) -> MicroBatch:
    """One rollout a prompt at temperature 1, all of its tokens supervised.

    Args:
        model: what writes.
        tokenizer: its own.
        prompts: B of them.
        limit: most tokens of a response.
        seed: of all rollouts; each prompt has random numbers of its own.
    """
    sampling = Sampling(samples=1, temperature=1.0, top_p=1.0, max_new_tokens=limit, seed=seed)
    requests = [
        Request(
            str(number),
            0,
            tuple(render_prompt(tokenizer, prompt)[1]),
            sampling.pair_seed(SEED_NAME, str(number), 0),
        )
        for number, prompt in enumerate(prompts)
    ]
    engine = TransformersEngine(model, tokenizer, len(requests), sort_by_length=False)
    (responses,) = engine.generate(requests, sampling)
    return batch_of([(response.request.prompt_ids, response.ids) for response in responses])


def read_states(model: Any, batch: MicroBatch) -> dict[int, Tensor]:
    """States [N, D] by layer, all layers, of the N positions that predict response tokens."""
    layers = select_layers("all", num_layers(model))
    with torch.no_grad(), evaluation_mode(model):
        return dict(read(model, batch.view, layers).states)


def batch_of(rollouts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> MicroBatch:
    """Prompts with responses, token ids; the ones are padded left, the others right."""
    prompts = left_pad([prompt for prompt, _ in rollouts], 0)
    responses = [torch.tensor(response) for _, response in rollouts]
    written = pad_sequence([torch.ones_like(r, dtype=torch.bool) for r in responses], True)
    response_ids = pad_sequence(responses, True)
    count = supervised_count(written)
    return MicroBatch.of_rollouts(
        torch.cat([prompts["input_ids"], response_ids], dim=1),
        torch.cat([prompts["attention_mask"], written.long()], dim=1),
        written,
        written,
        response_count=count,
        position_count=count,
    )
