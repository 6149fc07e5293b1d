"""Partners of two tokenisations from their definition: every state beside every other."""

from collections.abc import Iterable, Sequence
from typing import Any

# What a token spells: bytes, or a mark of a special token.
Token = Iterable[Any]


def read_by_states(tokens: Sequence[Token]) -> list[tuple[Any, ...]]:
    """What the state before each token, and the one after the last, has read."""
    states = range(len(tokens) + 1)
    return [tuple(symbol for token in tokens[:state] for symbol in token) for state in states]


def slow_partners(student: Sequence[Token], teacher: Sequence[Token]) -> list[int]:
    """For each of the student's states that predict a token the teacher's that has read the very
    same, each the first of its own that has; -1 where there is none."""
    ours, theirs = read_by_states(student), read_by_states(teacher)
    found = []
    for state in range(len(student)):
        is_first = all(ours[earlier] != ours[state] for earlier in range(state))
        same = [other for other, read in enumerate(theirs) if read == ours[state]]
        found.append(same[0] if is_first and same else -1)
    return found


def slow_latest(student: Sequence[Token], teacher: Sequence[Token]) -> list[int]:
    """For each of the student's states that predict a token its partner, or else the last of the
    teacher's that has read the most of what it has; -1 where it has read a token of no length, or
    more than the teacher ever does."""
    ours, theirs = read_by_states(student), read_by_states(teacher)
    found = slow_partners(student, teacher)
    for state, partner in enumerate(found):
        is_first = all(ours[earlier] != ours[state] for earlier in range(state))
        if partner == -1 and is_first and len(ours[state]) <= len(theirs[-1]):
            begun = [u for u, read in enumerate(theirs) if read == ours[state][: len(read)]]
            most = max(len(theirs[u]) for u in begun)
            found[state] = [u for u in begun if len(theirs[u]) == most][-1]
    return found
