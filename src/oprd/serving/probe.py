"""Whether a server serves the teacher whose checkpoint a run has: asked once, before anything else.

The server reads a known text. Its tokenizer must give the tokens that the teacher's own gives; and
the last states that it keeps, through the final norm and the LM head of the checkpoint here, must
give the log-probabilities that it says itself. What that does not see is another model between an
equal norm and an equal head.

Letters: T tokens, D width, A alternatives.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from oprd.core.capture import hidden_size, num_layers
from oprd.serving.checkpoint import Checkpoint, head_of
from oprd.serving.client import StatesServer

TEXT = "A server reads this: 2 + 3 = 5, and π is 3.14159.\n"
# Tokens whose log-probabilities are compared.
ALTERNATIVES = 5
# Seconds for its few states to come: another folder than the server's would be waited for in vain.
WAIT = 60.0
# Of differences between log-probabilities, in nats; a half-precision logit has eight bits.
SINGLE, HALF = 1e-2, 0.5


@torch.no_grad()
def check_server(
    server: StatesServer,
    model: PreTrainedModel,
    norm: nn.Module,
    checkpoint: Checkpoint,
    tokenizer: PreTrainedTokenizerBase | None,
) -> torch.dtype:
    """Refuse a server of another model or tokenizer.

    Args:
        server: that answers.
        model: the skeleton.
        norm: its final norm, with weights.
        checkpoint: of the teacher.
        tokenizer: the teacher's own; None where there is none.

    Returns:
        the dtype of the states.

    Raises:
        ValueError: the server's tokens, states or probabilities are not the teacher's.
    """
    if tokenizer is None:
        size = int(model.config.get_text_config().vocab_size)
        ids = [1 + 7 * n % (size - 1) for n in range(16)]
    else:
        ids = list(tokenizer(TEXT, add_special_tokens=False)["input_ids"])
        theirs = server.token_ids(TEXT)
        if theirs != ids:
            raise ValueError(
                f"the server at {server.url} reads a text as other tokens than the tokenizer of "
                f"{checkpoint.source!r}: it serves {server.name!r}, with another tokenizer."
            )
    last = num_layers(model)
    states, said = server.complete(
        ids, [last], within=WAIT, logprobs=ALTERNATIVES, return_tokens_as_token_ids=True
    )
    width = hidden_size(model)
    if states.shape[2] != width:
        raise ValueError(
            f"the server at {server.url} keeps states of width {states.shape[2]}, and "
            f"{checkpoint.source!r} has {width}: it serves {server.name!r}, another model."
        )
    tokens, expected = _alternatives(said)
    head, state = head_of(model, checkpoint), norm(states[-1:, 0].float())
    found = head.logits_at(state, tokens[None])[0]
    # The likeliest is what both are counted from: logits lack a constant.
    difference = ((found - found[0]) - (expected - expected[0])).abs().max().item()
    if not difference <= (SINGLE if states.dtype.itemsize >= 4 else HALF):
        raise ValueError(
            f"the server at {server.url} serves {server.name!r}, which is not "
            f"{checkpoint.source!r}: from its last states follow other probabilities than it says, "
            f"by up to {difference:.2g} nats. Serve that model, or name the one that is served."
        )
    return states.dtype


def _alternatives(said: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Token ids [A] and log-probabilities [A] of the likeliest next tokens."""
    try:
        top: dict[str, float] = said["choices"][0]["logprobs"]["top_logprobs"][0]
        pairs = [(int(name.removeprefix("token_id:")), float(p)) for name, p in top.items()]
        if len(pairs) < 2:
            raise ValueError("too few")
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(
            "the server says no probabilities of the next token: is it a server of vLLM's?"
        ) from error
    pairs.sort(key=lambda pair: -pair[1])
    return torch.tensor([t for t, _ in pairs]), torch.tensor([p for _, p in pairs])
