"""A student's response as a teacher with a tokenizer of its own reads it.

The teacher reads the bytes that the student wrote, in its own tokens, and its own special tokens in
the place of the student's. States meet where both have read the same, see `oprd.core.spans`.

Letters: B sequences, K response tokens of the student, M of the teacher.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from oprd.log import get_logger
from oprd.models.aligned import Aligned
from oprd.models.batch import AHEAD, BEHIND, COMPARED
from oprd.models.end_tokens import named_ends, turn_ends
from oprd.models.reread import MARK, Reread
from oprd.models.special_tokens import SpecialTokens
from oprd.models.token_bytes import TokenBytes
from oprd.models.token_classes import TokenClasses
from oprd.models.views import OWN_IDS, OWN_MASK, OWN_RESPONSE, OWN_ROWS, PROMPT_MASK

logger = get_logger(__name__)


class OwnTokens:
    """What a teacher with a tokenizer of its own reads of the student's responses.

    Args:
        student: the student's tokenizer.
        teacher: the teacher's.
        special: what the teacher reads in the place of the student's special tokens.

    Raises:
        ValueError: the bytes of a tokenizer's tokens are not known.
    """

    def __init__(self, student: Any, teacher: Any, special: SpecialTokens) -> None:
        self.tokenizer, self.special, self._reader = teacher, special, student
        self._stops: tuple[set[int], set[int]] = set(), set()
        # What the student was ahead by, so far, and where each stands.
        self.aheads = [b""]
        self._places = {b"": 0}
        self._student, self._teacher = _bytes("student", student), _bytes("teacher", teacher)

    @classmethod
    def of(
        cls,
        models: tuple[Any, Any],
        tokenizers: tuple[Any, Any],
        given: Mapping[str, str | None] | None = None,
    ) -> "OwnTokens":
        """Of two models and their tokenizers, the student's first; says what meets what.

        Args:
            models: that say where they stop.
            tokenizers: of both.
            given: see `SpecialTokens.of`.

        Raises:
            ValueError: there is no tokenizer of the teacher's, or see the class.
        """
        if tokenizers[1] is None:
            raise ValueError(
                "teacher_tokenizer='own' needs the teacher's tokenizer, and there is none beside "
                "its model: pass teacher_processing_class, or save it there."
            )
        # Whether they can be read at all is asked first.
        made = cls(*tokenizers, SpecialTokens({}, ()))
        stops = [named_ends(*both) for both in zip(models, tokenizers, strict=True)]
        made.special = SpecialTokens.of(*tokenizers, (stops[0], stops[1]), given)
        made._stops = stops[0], turn_ends(stops[1], tokenizers[1])
        logger.warning(
            "The teacher reads the text of prompts and responses in tokens of its own, and states "
            f"meet where both models have read the same. {made.special.words()}"
        )
        return made

    def common(self) -> tuple[Tensor, Tensor]:
        """[v] ids of the student and [v] of the teacher: tokens that both spell alike.

        Those of the same bytes, and special ones that meet, each once. Where a vocabulary has
        several of the same bytes, that which it writes: `4`, and not the `<0x34>` that is there for
        what has no token.
        """
        ours, theirs = (
            _by_bytes(known, tokenizer)
            for known, tokenizer in ((self._student, self._reader), (self._teacher, self.tokenizer))
        )
        # Several ends of the student's may meet the same one.
        special = {other: token for token, other in reversed(self.special.partners.items())}
        taken = set(self.special.partners)
        pairs = [
            (token, theirs[piece])
            for piece, token in ours.items()
            if piece in theirs and token not in taken and theirs[piece] not in special
        ]
        pairs += [(token, other) for other, token in special.items() if other is not None]
        student, teacher = zip(*pairs, strict=True) if pairs else ((), ())
        return torch.tensor(student, dtype=torch.long), torch.tensor(teacher, dtype=torch.long)

    def aligned(self, sizes: tuple[int, int]) -> Aligned:
        """How distributions are compared; says over how many classes of tokens.

        Args:
            sizes: rows of both LM heads, the student's first.

        Raises:
            ValueError: the vocabularies have nothing in common.
        """
        known = self._student, self._teacher
        found = TokenClasses(known, self.common(), sizes, self._stops)
        logger.warning(
            f"Distributions over the student's {sizes[0]:,} tokens and the teacher's {sizes[1]:,} "
            f"are compared over {found.met.count:,} classes of tokens that begin the same text."
        )
        return Aligned(found, self.aheads)

    def places(self, ahead: Sequence[bytes]) -> list[int]:
        """The places in `aheads` of what the student is ahead by."""
        for more in ahead:
            if more not in self._places:
                self._places[more] = len(self.aheads)
                self.aheads.append(more)
        return [self._places[more] for more in ahead]

    def read(self, ids: Sequence[int], most: int | None = None) -> Reread:
        """A response as the teacher reads it.

        It reads as far as it can: to the end, or to the first byte that it has no token for.

        Args:
            ids: [K] tokens of the student.
            most: tokens that the teacher has room for; None for all.
        """
        ends: list[int] = []
        parts: list[bytearray | int] = [bytearray()]
        length = 0
        for token in ids:
            if token in self.special.partners:
                partner = self.special.partners[token]
                if partner is not None:
                    parts += [partner, bytearray()]
                    length += MARK
            else:
                piece = self._student[token]
                text = parts[-1]
                assert isinstance(text, bytearray)
                text += piece
                length += len(piece)
            ends.append(length)
        own, theirs = self._read(parts)
        own, theirs = own[:most], theirs[:most]
        return Reread.of(own, parts, ends, theirs)

    def _read(self, parts: Sequence[bytearray | int]) -> tuple[list[int], list[int]]:
        """The teacher's tokens of stretches of bytes and special tokens, and their ends."""
        found: list[int] = []
        lengths: list[int] = []
        for part in parts:
            if isinstance(part, int):
                found.append(part)
                lengths.append(MARK)
                continue
            ids = self._teacher.encode(bytes(part))
            found += ids
            lengths += [len(self._teacher[token]) for token in ids]
            if self._teacher.of(ids) != part:
                break
        return found, list(accumulate(lengths))


class Met(NamedTuple):
    """How much of a batch a teacher with tokens of its own meets.

    Attributes:
        tokens: the student's response tokens that have a partner.
        written: all of them.
        only_ends: responses that are met at their ends alone.
    """

    tokens: int
    written: int
    only_ends: int


def add_responses(
    output: dict[str, Any],
    own: OwnTokens,
    context: int | None,
    name: str = "",
    *,
    cut: bool = False,
) -> Met:
    """Add to a generation batch what a teacher reads in the place of its responses.

    The student's tokens without a partner leave its supervised positions.

    Args:
        output: TRL's, of B sequences, with `positions` [B, K] bool and the teacher's prompts.
        own: what the teacher reads.
        context: the longest sequence that it reads, None where there is no limit.
        name: of the teacher.
        cut: whether it reads of a response what there is room for.

    Raises:
        ValueError: a response has no room in the teacher's context, and is not to be cut.
    """
    mask, device = output["completion_mask"].bool().cpu(), output["completion_ids"].device
    prompts = output[PROMPT_MASK + name].sum(dim=2).amax(dim=1).tolist()
    positions, compared = output["positions"].cpu().clone(), mask.clone()
    behind, ahead = (torch.zeros_like(mask, dtype=torch.long) for _ in range(2))
    ids: list[Tensor] = []
    rows: list[Tensor] = []
    used: list[Tensor] = []
    found: list[Reread] = []
    for row, written in enumerate(output["completion_ids"].cpu()):
        response = written[mask[row]].tolist()
        room = None if context is None else max(context - prompts[row], 0)
        read = own.read(response, room if cut else None)
        if room is not None and len(read.ids) > room:
            raise ValueError(
                f"response {row} of a batch has {len(response)} tokens for the student and "
                f"{len(read.ids)} for the teacher, which reads {context} at most and has "
                f"{prompts[row]} of them in the prompt: lower max_completion_length, or set "
                "long_prompts='drop' to have it read what there is room for."
            )
        compared[row, mask[row]] = read.compared()
        behind[row, mask[row]] = torch.tensor(read.latest, dtype=torch.long)
        ahead[row, mask[row]] = torch.tensor(own.places(read.ahead), dtype=torch.long)
        positions[row, mask[row]] &= read.met()
        positions[row, ~mask[row]] = False
        ids.append(torch.tensor([*read.ids, 0], dtype=torch.long))
        rows.append(read.rows(positions[row, mask[row]]))
        used.append(read.response())
        found.append(read)
    there = [torch.ones(len(own_ids), dtype=torch.long) for own_ids in ids]
    for own_mask in there:
        own_mask[-1] = 0
    output["positions"] = positions.to(device)
    for key, table in ((COMPARED, compared), (BEHIND, behind), (AHEAD, ahead)):
        output[key] = table.to(device)
    added = {OWN_IDS: ids, OWN_MASK: there, OWN_ROWS: rows, OWN_RESPONSE: used}
    for key, parts in added.items():
        output[key + name] = pad_sequence(parts, batch_first=True).to(device)
    tokens = sum(int(read.met().sum()) for read in found)
    return Met(tokens, int(mask.sum()), sum(read.only_ends for read in found))


def _by_bytes(known: TokenBytes, tokenizer: Any) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for token in sorted(tokenizer.get_vocab().values(), key=lambda t: (known.falls_back(t), t)):
        if piece := known[token]:
            found.setdefault(piece, token)
    return found


def _bytes(role: str, tokenizer: Any) -> TokenBytes:
    try:
        return TokenBytes(tokenizer)
    except ValueError as error:
        raise ValueError(f"teacher_tokenizer='own', the {role}'s tokenizer: {error}") from error
