r"""Where the answer stands in a response: the last `\boxed{}` or `\fbox{}`."""

import re
from typing import NamedTuple

# Longer answers are babble, unless they are integers.
LONGEST = 2_000
# A formula in a box without braces ends with its line, or is not one.
LONGEST_UNBRACED = 200
BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
BOX = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*(\{)?")
EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{\s*\}")
# Where the formula ends in which a box without braces stands.
FORMULA_END = re.compile(r"\$|\\boxed|\\fbox|\\[)\]]|\\\\|\\end(?![a-zA-Z])|\*\*|&|\n")
# A formula has no words outside of a macro's braces.
PROSE = re.compile(r"(?<![\\a-zA-Z])[^\W\d_]{2,}")
ARGUMENTS = re.compile(r"\{[^{}]*\}")
GROUP = r"\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}"
# What TeX would box is its first token; whole numbers and a macro with its arguments are meant.
TOKEN = re.compile(
    rf"[+-]?\s*(?:\d+(?:[.,]\d+)*|[^\W\d_](?![^\W\d_])"
    rf"|\\[dtc]?frac\s*(?:{GROUP}|\d)\s*(?:{GROUP}|\d)"
    rf"|\\sqrt\s*(?:\[[^\[\]]*\])?\s*(?:{GROUP}|\d)|\\[a-zA-Z]+(?:{GROUP})*)"
)
NOTHING = re.compile(
    r"\s|~|\\[ ,;:!]|\\q?quad(?![a-zA-Z])|[${}]|\\boxed|\\fbox"
    r"|\\(?:text|textbf|textit|textrm|textnormal|mbox|mathrm|mathbf|operatorname|hbox)(?![a-zA-Z])"
)


class Box(NamedTuple):
    """The last box of a response: its content, None without one, or that it was never closed."""

    content: str | None
    unterminated: bool = False


def last_box(text: str) -> Box:
    r"""The last box that is balanced and not empty, with braces or, as in `\boxed 7`, without.

    A box opened after it and never closed is the answer that was being written: nothing before it
    is taken instead.
    """
    text = EMPTY_BOX.sub("", text)
    closing = closing_braces(text)
    # Backwards: a box that stays open around later complete ones does not hide them.
    for match in reversed(list(BOX.finditer(text))):
        if match[1] is None:
            content = _unbraced(text[match.end() : match.end() + LONGEST_UNBRACED])
        elif (end := closing.get(match.end() - 1)) is None:
            return Box(None, unterminated=True)
        else:
            content = stripped(text[match.end() : end])
        if len(content) > LONGEST or not is_blank(content):
            return Box(content)
    return Box(None)


def is_blank(content: str) -> bool:
    """Whether a box holds nothing that shows."""
    return NOTHING.sub("", content) == ""


def stripped(text: str) -> str:
    """A text without the spaces around it, a last control space included."""
    return re.sub(r"(?<!\\)((?:\\\\)*)\\$", r"\1", text.strip()).strip()


def closing_braces(text: str) -> dict[int, int]:
    """Where each opening brace that is closed is closed; escaped braces are characters."""
    closing, opened = {}, []
    for match in BRACE.finditer(text):
        if match[0] == "{":
            opened.append(match.start())
        elif match[0] == "}" and opened:
            closing[opened.pop()] = match.start()
    return closing


def is_balanced(text: str) -> bool:
    """Whether every brace of a text closes within it."""
    return closing_braces(f"{{{text}}}").get(0) == len(text) + 1


def _unbraced(rest: str) -> str:
    r"""What `\boxed` without a brace boxes: the formula that follows it, or nothing.

    In the middle of a sentence, where nothing says how far the formula goes, it is one token.
    """
    formula = FORMULA_END.split(rest, maxsplit=1)[0]
    outer = closing_braces("{" + formula).get(0)
    formula = stripped(formula if outer is None else formula[: outer - 1]).rstrip(".,;:")
    if not is_balanced(formula):
        return ""
    bare = formula
    while (inner := ARGUMENTS.sub(" ", bare)) != bare:
        bare = inner
    if PROSE.search(bare) is None:
        return formula
    token = TOKEN.match(formula)
    return token[0] if token else ""
