"""The two forms of a prompt, as TRL has them, and what a chat template makes of one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Message = dict[str, str]
# Plain text, or chat messages that a tokenizer's template renders.
Prompt = str | list[Message]
REFUSED = "is refused by the chat template"


def render(tokenizer: Any, messages: Sequence[Message], **options: Any) -> str:
    """Chat messages as a tokenizer's template, given these options, writes them.

    Raises:
        ValueError: the template refuses them; the message ends in what it says.
    """
    try:
        text = tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True, **options
        )
    # A template is a program of its author's: whatever it raises is its refusal.
    except Exception as error:
        raise ValueError(f"the prompt {refusal(messages, error)}") from error
    return str(text)


def refusal(prompt: Any, error: Exception) -> str:
    """What an error says of the prompt that it met, as the rest of a sentence about that prompt."""
    if isinstance(error, ValueError) and str(error).startswith(f"the prompt {REFUSED}"):
        return str(error).removeprefix("the prompt ")
    said = f"({type(error).__name__}: {error})"
    return f"cannot be read {said}" if isinstance(prompt, str | None) else f"{REFUSED} {said}"


def template_check(tokenizer: Any, options: Mapping[str, Any] | None) -> Callable[[Prompt], None]:
    """What refuses, with a ValueError, each prompt that a tokenizer's template refuses.

    Args:
        tokenizer: without a template nothing is refused.
        options: what the template is given.
    """

    def check(prompt: Prompt) -> None:
        if not isinstance(prompt, str) and tokenizer.chat_template:
            render(tokenizer, prompt, **(options or {}))

    return check


def check_template(reader: Any, prompt: Any) -> None:
    """Refuse, with a ValueError, messages for a tokenizer or processor without a template."""
    if not isinstance(prompt, str) and not getattr(reader, "chat_template", None):
        raise ValueError(
            "the prompts are chat messages, and the student's tokenizer has no chat template, as "
            "is usual for a base model: give prompts that are plain text, or set "
            "tokenizer.chat_template (that of an instruct model of the family) and save the "
            "tokenizer beside the model."
        )
