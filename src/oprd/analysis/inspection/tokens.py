"""How student and teacher read text: tokenizers, chat templates and stop tokens side by side."""

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from oprd.models.generate import end_token_ids
from oprd.models.prompt import Prompt, render_prompt
from oprd.models.token_bytes import TokenBytes
from oprd.models.tokenizers import other_meanings
from oprd.prompts.seam import check_seam

# Characters before and after the place where two texts part.
AROUND = 24


def compare_tokenizers(
    student: PreTrainedTokenizerBase,
    teacher: PreTrainedTokenizerBase,
    prompt: Prompt,
    template_options: Mapping[str, Any],
) -> dict[str, Any]:
    """Vocabularies, templates and one prompt as each tokenizer renders it.

    Args:
        student: the student's.
        teacher: the teacher's.
        prompt: what is rendered.
        template_options: what the student's template is given, and the teacher's where it reads
            the student's tokens.

    Returns:
        `vocabulary`, `template` and `prompt`, each with an entry for either model, and what differs
        first; JSON can hold it.
    """
    both = {"student": student, "teacher": teacher}
    different = other_meanings(student, teacher)
    templates = {role: _template(tokenizer) for role, tokenizer in both.items()}
    options = {"student": template_options, "teacher": {} if different else template_options}
    rendered = {role: _rendered(t, prompt, options[role]) for role, t in both.items()}
    texts = [rendered[role].get("text") for role in both]
    return {
        "vocabulary": {
            **{role: len(tokenizer.get_vocab()) for role, tokenizer in both.items()},
            "different": len(different),
            "first_difference": list(different[0]) if different else None,
        },
        "template": {**templates, "first_difference": first_difference(*templates.values())},
        "prompt": {**rendered, "first_difference": first_difference(*texts)},
    }


def check_own_tokens(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, prompt: Prompt
) -> None:
    """Whether a teacher to which the student's ids are other tokens can read its own.

    A chat template that writes something else before a response is warned of.

    Raises:
        ValueError: the bytes of one's tokens are not known, or see `check_seam`.
    """
    for role, tokenizer in (("student", student), ("teacher", teacher)):
        try:
            TokenBytes(tokenizer)
        except ValueError as error:
            raise ValueError(
                "the student's token ids are other tokens to the teacher, which cannot read the "
                f"text in its own either. The {role}'s tokenizer: {error}"
            ) from error
    check_seam(teacher, prompt, *render_prompt(teacher, prompt))


def stop_tokens(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The tokens that end a response of a model.

    Raises:
        ValueError: there is none.
    """
    ids = end_token_ids(model, tokenizer)
    return [str(token) for token in tokenizer.convert_ids_to_tokens(ids)]


def first_difference(first: str | None, second: str | None) -> dict[str, Any] | None:
    """Where two texts part, and what stands there in either; None where they are the same.

    A text that is not there is like an empty one.
    """
    if first == second:
        return None
    texts = first or "", second or ""
    pairs = enumerate(zip(*texts, strict=False))
    at = next((n for n, (a, b) in pairs if a != b), min(map(len, texts)))
    excerpts = [text[max(0, at - AROUND) : at + AROUND] for text in texts]
    return {"at": at, "student": excerpts[0], "teacher": excerpts[1]}


def _template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    template: Any = tokenizer.chat_template
    # Some tokenizers have several, by name.
    return template if isinstance(template, str | None) else str(template.get("default"))


def _rendered(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, options: Mapping[str, Any]
) -> dict[str, Any]:
    """`text` and its number of `tokens`, or the `problem` that there is with it."""
    try:
        text, ids = render_prompt(tokenizer, prompt, **options)
    except ValueError as error:
        return {"problem": str(error)}
    return {"text": text, "tokens": len(ids)}
