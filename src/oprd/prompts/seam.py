"""Where a response begins, by the chat template of a teacher that has a tokenizer of its own."""

from collections.abc import Sequence
from typing import Any

from oprd.log import get_logger
from oprd.models.prompt import Prompt

# What an assistant might say; a template that strips texts takes the space away.
SAID = " Yes"
# Characters of a rendering's end.
SHOWN = 120

logger = get_logger(__name__)


def check_seam(
    reader: Any, prompt: Prompt, text: str, ids: Sequence[int], **template_options: Any
) -> None:
    """Say where a chat template has other text before a response than it asks for one with.

    The teacher reads the student's response right after the prompt, whatever the template makes of
    an assistant's turn that is over.

    Args:
        reader: the teacher's tokenizer.
        prompt: that it was given.
        text: as it is rendered.
        ids: its tokens.
        template_options: what the template is given.

    Raises:
        ValueError: the tokenizer ends a prompt that is text.
    """
    if isinstance(prompt, str) or reader.chat_template is None:
        if ids and ids[-1] == reader.eos_token_id and not text.endswith(str(reader.eos_token)):
            raise ValueError(
                f"the teacher's tokenizer puts {reader.eos_token} behind a prompt, where the "
                "response is to begin: set its add_eos_token to false and save it."
            )
        return
    turn = {"role": "assistant", "content": SAID}
    try:
        told = reader.apply_chat_template(
            [*prompt, turn], tokenize=False, add_generation_prompt=False, **template_options
        )
    # A template is a program of its author's; one that refuses finished turns shows no seam.
    except Exception as error:
        logger.warning(f"The teacher's chat template takes no finished turn ({error}).")
        return
    if str(told).startswith(text + SAID):
        return
    does = "strips" if str(told).startswith(text + SAID.lstrip()) else "adds or strips text before"
    logger.warning(
        f"The teacher's chat template {does} what an assistant says. It asks for a response with "
        f"…{text[-SHOWN:]!r}, and a turn that says {SAID!r} ends in …{str(told)[-SHOWN:]!r}. The "
        "teacher reads responses right behind the former; teacher_chat_template_kwargs, such as "
        "enable_thinking, may make both alike."
    )
