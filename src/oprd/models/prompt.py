"""The two forms of a prompt, as TRL has them, and what a template makes of one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oprd.extras import require

Message = dict[str, str]
# Plain text, or chat messages that a tokenizer's template renders.
Prompt = str | list[Message]
# The column of prompts that names which of several teachers a row has.
ROUTE = "teacher"
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


def render_prompt(tokenizer: Any, prompt: Prompt, **template_options: Any) -> tuple[str, list[int]]:
    """A prompt as the model reads it: text and tokens.

    Plain text is tokenized as TRL does, special tokens included. Chat messages go through the
    tokenizer's template, with its options; a tokenizer without one reads their contents as plain
    text.

    Raises:
        ValueError: the template refuses the messages.
    """
    if not isinstance(prompt, str) and tokenizer.chat_template is not None:
        text = render(tokenizer, prompt, **template_options)
        return text, list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not isinstance(prompt, str):
        prompt = "\n\n".join(message["content"] for message in prompt) + "\n"
    return prompt, list(tokenizer(prompt)["input_ids"])


def generation_prompt(
    tokenizer: Any, prompt: Prompt, rendered: str, **template_options: Any
) -> str:
    """The end of a rendered prompt, where the response begins.

    Of chat messages it is what the template adds to them for the response; where that cannot be
    told, and of plain text, it is all.
    """
    if isinstance(prompt, str) or tokenizer.chat_template is None:
        return rendered
    messages = tokenizer.apply_chat_template(
        prompt, tokenize=False, add_generation_prompt=False, **template_options
    )
    return rendered.removeprefix(str(messages)) or rendered


def refusal(prompt: Any, error: Exception) -> str:
    """What an error says of the prompt that it met, as the rest of a sentence about that prompt."""
    if isinstance(error, ValueError) and str(error).startswith(f"the prompt {REFUSED}"):
        return str(error).removeprefix("the prompt ")
    said = f"({type(error).__name__}: {error})"
    return f"cannot be read {said}" if isinstance(prompt, str | None) else f"{REFUSED} {said}"


def compile_template(source: str | None, setting: str) -> Callable[..., str] | None:
    """What renders a Jinja template, given its names; None for none.

    It runs in the sandbox in which Transformers runs chat templates. A name that it is not given is
    refused, with a ValueError, where it is rendered, and so is one without a value that it writes.

    Args:
        source: of the template.
        setting: what it is the value of, for messages.

    Raises:
        ValueError: it is no template.
        ImportError: Jinja is not installed.
    """
    if source is None:
        return None
    jinja = require("jinja2", "report", setting)
    try:
        template = _environment().from_string(source)
    except jinja.TemplateSyntaxError as error:
        raise ValueError(
            f"{setting} is no Jinja template: line {error.lineno}: {error.message}"
        ) from error

    def rendered(**names: Any) -> str:
        try:
            return template.render(**names)
        # A template is a program: whatever it raises says why this row has no prompt.
        except Exception as error:
            raise ValueError(f"has no prompt by {setting}: {error}") from error

    return rendered


def template_columns(source: str | None) -> set[str]:
    """The names that a Jinja template takes from outside."""
    if source is None:
        return set()
    meta = require("jinja2.meta", "report", "a template")
    return set(meta.find_undeclared_variables(_environment().parse(source)))


def _environment() -> Any:
    sandbox = require("jinja2.sandbox", "report", "a template")
    undefined = require("jinja2", "report", "a template").StrictUndefined
    return sandbox.ImmutableSandboxedEnvironment(undefined=undefined, finalize=_something)


def _something(value: Any) -> Any:
    """What a template writes, which a row that lacks it would make the word None."""
    if value is None:
        raise ValueError("what it would write is missing in this row")
    return value


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
