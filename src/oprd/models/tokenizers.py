"""Whether a student's token ids mean the same to its teacher.

The teacher reads the ids that the student wrote. Sizes may differ, by padding of the embedding or
by tokens that only the teacher knows; meanings may not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from oprd.hub import only_cached
from oprd.log import get_logger

logger = get_logger(__name__)

# Ids listed in an error.
SHOWN = 5
# Bytes of a character, of which each may be a token.
LONGEST_CHARACTER = 4


def check_tokenizers(
    student: PreTrainedTokenizerBase,
    teacher: PreTrainedTokenizerBase | None,
    teacher_model: PreTrainedModel,
    *,
    no_own: str | None = None,
) -> bool:
    """Compare the student's tokenizer with the teacher's.

    Without a teacher's tokenizer only sizes can be compared, which a warning says.

    Args:
        student: the student's tokenizer.
        teacher: the teacher's, None where there is none.
        teacher_model: the teacher.
        no_own: see `check_same_meaning`.

    Returns:
        Whether the meanings of the ids were compared.

    Raises:
        ValueError: see `check_same_meaning`.
    """
    vocab_size = teacher_model.config.get_text_config().vocab_size
    if teacher is not None:
        check_same_meaning(student, teacher, vocab_size, no_own=no_own)
        return True
    _check_size(student, vocab_size)
    logger.warning(
        "The teacher's tokenizer was not found, so that its token ids could not be compared with "
        "the student's: pass teacher_processing_class to have them compared."
    )
    return False


def find_tokenizer(
    place: str, revision: str | None, options: Mapping[str, Any]
) -> PreTrainedTokenizerBase | None:
    """The tokenizer beside a model, None where there is none.

    Args:
        place: path or hub id of the model; may be empty.
        revision: of a hub id.
        options: what the model is loaded with, of which `revision` and `trust_remote_code` count.
    """
    if not place:
        return None
    known = {"trust_remote_code": False, "revision": revision}
    known |= {name: options[name] for name in known if name in options}
    try:
        return AutoTokenizer.from_pretrained(place, local_files_only=only_cached(place), **known)
    except (OSError, ValueError):
        return None


def check_same_meaning(
    student: PreTrainedTokenizerBase,
    teacher: PreTrainedTokenizerBase,
    teacher_vocab_size: int,
    *,
    no_own: str | None = None,
) -> None:
    """Refuse a teacher that reads any of the student's token ids as another token.

    Args:
        student: the student's tokenizer.
        teacher: the teacher's tokenizer; it may know more tokens.
        teacher_vocab_size: rows of the teacher's embedding.
        no_own: why it cannot read tokens of its own in this run; None where it can, which is
            advised then.

    Raises:
        ValueError: an id of the student is another token, or none, to the teacher; the message
            lists the first such ids.
    """
    if different := other_meanings(student, teacher):
        listed = ", ".join(
            f"{index} ({ours!r} / {theirs!r})" for index, ours, theirs in different[:SHOWN]
        )
        raise ValueError(
            f"the teacher reads {len(different)} of the student's {len(student.get_vocab())} token "
            f"ids as other tokens; the first are {listed}. The teacher would read noise: "
            f"use a teacher with the student's tokenizer{_or_own(no_own)}."
        )
    _check_size(student, teacher_vocab_size)


def _or_own(no_own: str | None) -> str:
    if no_own is None:
        return ", or let it read tokens of its own by teacher_tokenizer='own', mostly with a bridge"
    return f". Tokens of its own it cannot read in this run: {no_own}"


def other_meanings(
    student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase
) -> list[tuple[int, str, str | None]]:
    """The student's ids that are another token to the teacher, None where none, in their order."""
    theirs = {index: token for token, index in teacher.get_vocab().items()}
    ours = sorted((index, token) for token, index in student.get_vocab().items())
    found = [(index, token, theirs.get(index)) for index, token in ours]
    return [meaning for meaning in found if meaning[1] != meaning[2]]


def _check_size(student: PreTrainedTokenizerBase, teacher_vocab_size: int) -> None:
    largest = max(student.get_vocab().values(), default=-1)
    if largest >= teacher_vocab_size:
        raise ValueError(
            f"the student's tokenizer goes up to id {largest}, but the teacher's embedding has "
            f"{teacher_vocab_size} rows: use a teacher with the student's tokenizer."
        )


def token_texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """Tokens as text, one by one, which joined are the text of all of them.

    A token that ends within a character gets none: the one that completes it has it whole.
    """
    texts: list[str] = []
    # A tokenizer may leave out the space before what it decodes first, so each is read after the
    # last that is done.
    before: list[int] = []
    pending: list[int] = []
    for place, token in enumerate(ids):
        pending.append(token)
        known = str(tokenizer.decode(before))
        text = str(tokenizer.decode([*before, *pending]))[len(known) :]
        unfinished = text.endswith("\ufffd") and len(pending) < LONGEST_CHARACTER
        if unfinished and place + 1 < len(ids):
            texts.append("")
            continue
        texts.append(text)
        before, pending = pending, []
    return texts
