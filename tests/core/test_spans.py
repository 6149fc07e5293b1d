from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oprd.core.spans import NONE, latest, partners
from tests.reference.spans import read_by_states, slow_latest, slow_partners


def ends(tokens: list[bytes]) -> list[int]:
    return list(accumulate(map(len, tokens)))


@st.composite
def two_tokenisations(draw):
    """One string of bytes cut twice, with tokens of no length among them."""
    data = draw(st.binary(max_size=30))

    def cut() -> list[bytes]:
        places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=12)))
        return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]

    return cut(), cut()


@given(two_tokenisations())
def test_partners_are_those_of_the_slow_reference(both):
    student, teacher = both
    assert partners(ends(student), ends(teacher)) == slow_partners(student, teacher)


@given(two_tokenisations())
def test_partners_have_read_the_same_bytes_and_increase(both):
    student, teacher = both
    found = partners(ends(student), ends(teacher))
    ours, theirs = read_by_states(student), read_by_states(teacher)
    pairs = [(t, u) for t, u in enumerate(found) if u != NONE]
    assert len(found) == len(student)
    assert all(ours[t] == theirs[u] for t, u in pairs)
    assert all(a < b for (_, a), (_, b) in pairwise(pairs))
    assert pairs[0] == (0, 0)


@given(two_tokenisations())
def test_a_tokenisation_meets_itself_token_by_token_but_where_a_token_has_no_length(both):
    tokens, _ = both
    found = partners(ends(tokens), ends(tokens))
    nothing_new = [t > 0 and not tokens[t - 1] for t in range(len(tokens))]
    assert found == [NONE if empty else t for t, empty in enumerate(nothing_new)]


@given(two_tokenisations(), st.integers(0, 3))
def test_the_latest_are_those_of_the_slow_reference_and_never_go_back(both, cut):
    """Also where the teacher stops before the end."""
    student, teacher = both
    teacher = teacher[: len(teacher) - cut]
    found = latest(ends(student), ends(teacher))
    assert found == slow_latest(student, teacher)
    met = [u for u in found if u != NONE]
    assert all(a <= b for a, b in pairwise(met))


@given(two_tokenisations())
def test_the_first_of_states_that_read_equally_much_meets(both):
    """One after a token without length has read that token, which the other model has not."""
    student, teacher = both
    found = partners(ends(student), ends(teacher))
    assert all(found[t] == NONE for t in range(1, len(student)) if not student[t - 1])
    assert all(u in (NONE, 0) or teacher[u - 1] for u in found)


def test_characters_meet_byte_pairs_at_the_edges_of_these():
    assert partners(ends([b"c", b"a", b"t", b" ", b"x"]), ends([b"cat", b" x"])) == [
        0, NONE, NONE, 1, NONE,
    ]  # fmt: skip


def test_the_end_of_the_student_meets_the_teachers_last_state_whatever_ends_it():
    """The student's end token has no length here; the teacher has none."""
    assert partners(ends([b"cat", b""]), ends([b"c", b"at"])) == [0, 2]


def test_part_of_a_character_meets_only_what_ends_in_the_same_byte():
    smile = "🙂".encode()
    assert partners(ends([smile[:2], smile[2:], b"!"]), ends([smile, b"!"])) == [0, NONE, 1]
    assert partners(ends([smile[:2], smile[2:]]), ends([smile[:2], smile[2:3]])) == [0, 1]


def test_a_response_without_a_token_has_no_partner():
    assert partners([], [3, 5]) == []
    assert partners([2, 4], []) == [0, NONE]


@pytest.mark.parametrize(("student", "teacher"), [([2, 1], [2]), ([2], [3, 1]), ([-1], [1])])
def test_ends_that_decrease_are_refused(student, teacher):
    with pytest.raises(ValueError, match="decrease"):
        partners(student, teacher)
