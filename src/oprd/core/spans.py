"""Where two tokenisations of one response have read the same.

A response is what its tokens spell: bytes, and marks for special tokens that both models know by
their role, each of which counts as one. The end of a token is how much of that has been read after
it. A state that has read e of it predicts what follows e, in either model: states meet where both
have read the same.

Letters: K tokens of the student, M of the teacher.
"""

from bisect import bisect_right
from collections.abc import Sequence

# In the place of a partner.
NONE = -1


def partners(student: Sequence[int], teacher: Sequence[int]) -> list[int]:
    """The teacher's state that each of the student's meets, by the token that it predicts.

    Nothing has been read before the first token, in either model, so that the first states always
    meet. The teacher's state after its last token is there too, since something may follow it:
    where the student has read all of the response it predicts the end, whatever that is called.

    Where tokens without length follow one another, several states have read equally much. The first
    of them meets: it has read that and no more, whereas those after it have read a token that the
    other model does not know. So no state meets twice, and partners increase.

    Args:
        student: [K] ends of the student's tokens, which never decrease.
        teacher: [M] likewise.

    Returns:
        [K], for the state that predicts the student's token t the number u of the teacher's token
        that its partner predicts, 0 ≤ u ≤ M; `NONE` without one.

    Raises:
        ValueError: an end is below the one before it.
    """
    first: dict[int, int] = {}
    for state, read in enumerate(_read("teacher", teacher)):
        first.setdefault(read, state)
    found: list[int] = []
    before = None
    # The state after the student's last token predicts nothing of the response.
    for read in _read("student", student)[: len(student)]:
        found.append(NONE if read == before else first.get(read, NONE))
        before = read
    return found


def latest(student: Sequence[int], teacher: Sequence[int]) -> list[int]:
    """The teacher's state that has read the most of what each of the student's has, and no more.

    Where states meet it is the partner. Between, the teacher has read a little less: the student is
    within a token of the teacher's.

    Args:
        student: [K] ends of the student's tokens, which never decrease.
        teacher: [M] likewise.

    Returns:
        [K], as `partners`; `NONE` where the student has read a token that the teacher does not
        know, or more than the teacher at its end.

    Raises:
        ValueError: an end is below the one before it.
    """
    met, theirs = partners(student, teacher), _read("teacher", teacher)
    ours = _read("student", student)

    def behind(token: int) -> int:
        repeats = token > 0 and ours[token] == ours[token - 1]
        if met[token] != NONE or repeats or ours[token] > theirs[-1]:
            return met[token]
        return bisect_right(theirs, ours[token]) - 1

    return [behind(token) for token in range(len(student))]


def _read(role: str, ends: Sequence[int]) -> list[int]:
    """What the states before, between and after tokens have read."""
    read = [0, *ends]
    for before, after in zip(read, ends, strict=False):
        if after < before:
            raise ValueError(f"the ends of the {role}'s tokens decrease, from {before} to {after}.")
    return read
