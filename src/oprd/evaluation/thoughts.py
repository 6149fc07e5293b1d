"""Thoughts that tags set apart from the answer, opened by the model or already by its prompt."""

import re

# As models and their templates write them.
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)


def answer_part(text: str) -> str:
    """What follows the thoughts: nothing inside one is an answer.

    A thought that is opened and never closed has not been left.
    """
    for opening, closing in TAGS:
        text = text.rpartition(closing)[2].partition(opening)[0]
    return text


def open_thought(prompt: str) -> str:
    """The tag of the thought that a rendered prompt leaves open at its end, or nothing.

    A tag that a prompt only speaks of, as in "think within <think> tags", opens none: one that does
    is the last of the prompt, or the first of a line or of a turn, as in "Assistant: <think>".
    """
    for opening, closing in TAGS:
        tag = re.escape(opening)
        if re.search(rf"(?:^|[\n>|\]:])[ \t]*{tag}|{tag}\s*$", prompt.rpartition(closing)[2]):
            return opening
    return ""
