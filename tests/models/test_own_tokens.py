"""What a teacher of another vocabulary reads, held to a slow reference, and its awkward cases."""

import functools
from itertools import pairwise, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oprd.core.spans import NONE
from oprd.models.own_tokens import OwnTokens
from oprd.models.reread import Reread
from oprd.models.special_tokens import SpecialTokens
from oprd.models.token_bytes import TokenBytes
from tests.models.built_tokenizers import BUILT, WHOLE, tokenizer
from tests.models.test_token_bytes import TEXT
from tests.reference.spans import read_by_states, slow_latest, slow_partners

PAIRS = [pair for pair in product(BUILT, WHOLE) if pair[0] != pair[1]]
REAL_PAIRS = [
    ("qwen3", "gemma3"), ("gemma3", "qwen3"), ("llama3", "deepseek_v3"), ("gptoss", "gemma3"),
]  # fmt: skip
FAMILY, ACCENT = "👩‍👩‍👧‍👦", "e\u0301"


class Both:
    """A student's tokenizer and a teacher's, and what one reads of the other."""

    def __init__(self, student: str, teacher: str) -> None:
        self.student, self.teacher = tokenizer(student), tokenizer(teacher)
        stops = {self.student.eos_token_id}, {self.teacher.eos_token_id}
        special = SpecialTokens.of(self.student, self.teacher, stops)
        self.own = OwnTokens(self.student, self.teacher, special)
        self.marks = special.partners
        self.bytes = TokenBytes(self.student), TokenBytes(self.teacher)

    def ids(self, text: str, *, end: bool = False) -> list[int]:
        """A text in the student's tokens."""
        return self.bytes[0].encode(text.encode()) + [self.student.eos_token_id] * end

    def symbols(self, ids, of: str):
        """Every token as bytes, one that both know as a mark, another special one as nothing."""
        if of == "student":
            marks, known = self.marks, self.bytes[0]
        else:
            marks, known = {m: m for m in self.marks.values() if m is not None}, self.bytes[1]
        found = []
        for token in ids:
            mark = marks.get(token)
            spelled = () if token in marks else tuple(known[token])
            found.append(spelled if mark is None else (("mark", mark),))
        return found

    def check(self, ids) -> Reread:
        """Hold what is read of a response to its definition."""
        read = self.own.read(ids)
        ours, theirs = self.symbols(ids, "student"), self.symbols(read.ids, "teacher")
        assert read.partners == slow_partners(ours, theirs)
        states = read_by_states(ours), read_by_states(theirs)
        # All of it, by a teacher that has tokens for everything.
        assert states[1][-1] == states[0][-1]
        pairs = [(t, u) for t, u in enumerate(read.partners) if u != NONE]
        assert all(states[0][t] == states[1][u] for t, u in pairs)
        assert all(a < b for (_, a), (_, b) in pairwise(pairs))
        assert not ids or pairs[0] == (0, 0)
        assert read.latest == slow_latest(ours, theirs) or any(
            symbol and not isinstance(symbol[0], int) for symbol in ours
        )
        for t, (u, ahead) in enumerate(zip(read.latest, read.ahead, strict=True)):
            assert u == NONE or (*states[1][u], *ahead) == states[0][t]
        return read


@functools.cache
def both(student: str, teacher: str) -> Both:
    return Both(student, teacher)


def held(test):
    options = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
    return settings(max_examples=30, **options)(test)


@pytest.mark.parametrize("kinds", [*PAIRS, *REAL_PAIRS], ids=" → ".join)
@held
@given(text=TEXT)
def test_a_text_is_read_to_its_end_and_states_meet_as_the_slow_reference_says(kinds, text):
    made = both(*kinds)
    made.check(made.ids(text, end=True))


@pytest.mark.parametrize("kinds", [*PAIRS, *REAL_PAIRS], ids=" → ".join)
@held
@given(data=st.data())
def test_whatever_tokens_the_student_draws_are_read_to_the_end(kinds, data):
    """Broken characters and special tokens among them, and no end, as a limit leaves them."""
    made = both(*kinds)
    made.check(data.draw(st.lists(st.integers(0, len(made.student) + 3), max_size=20)))


@pytest.mark.parametrize("kinds", [*PAIRS, *REAL_PAIRS], ids=" → ".join)
@pytest.mark.parametrize(
    "text",
    [
        f"{FAMILY}{FAMILY}",
        f"{ACCENT}{ACCENT} é",
        "日本語の文",
        "a\r\nb\r\n\r\nc",
        "   leading",
        "ends in 🙂",
        "no▁space▁",
    ],
)
def test_an_awkward_text_keeps_meeting_and_never_collapses(kinds, text):
    made = both(*kinds)
    read = made.check(made.ids(text, end=True))
    if made.ids(text) and kinds[0] != "characters":
        assert read.partners[-1] == len(read.ids) - 1
        assert len([u for u in read.partners if u != NONE]) > 2 or read.only_ends


def test_a_character_cut_by_the_limit_meets_up_to_it_and_not_within():
    made = both("byte-level BPE", "SentencePiece with bytes")
    whole = made.ids("so ▮")
    cut = whole[:-1]
    read = made.check(cut)
    assert made.bytes[1].of(read.ids) == "so ▮".encode()[:-1]
    # Spelled in bytes by both, they meet at each; a teacher without bytes reads up to it.
    alone = both("byte-level BPE", "characters")
    read = alone.own.read(alone.ids("so ▮")[:-1])
    assert alone.bytes[1].of(read.ids) == b"so "
    kept = [t for t, u in enumerate(read.partners) if u != NONE]
    assert alone.bytes[0].of(alone.ids("so ▮")[: kept[-1]]) == b"so "


def test_parts_of_a_character_meet_a_whole_one_at_its_edges_alone():
    made = both("byte-level BPE", "Unigram with bytes")
    ids = made.ids("é")
    read = made.own.read([*ids, *made.ids("!")])
    assert read.partners[0] == 0 and read.partners[-1] == len(read.ids) - 1


def test_the_end_is_met_however_it_is_called_and_where_it_has_no_partner():
    made = both("byte-level BPE", "SentencePiece with bytes")
    ids = made.ids("cat", end=True)
    read = made.own.read(ids)
    assert made.student.eos_token != made.teacher.eos_token
    assert read.ids[-1] == made.teacher.eos_token_id
    assert read.partners[-1] == len(read.ids) - 1
    nothing = SpecialTokens(dict.fromkeys(made.marks), ())
    alone = OwnTokens(made.student, made.teacher, nothing).read(ids)
    assert alone.ids == read.ids[:-1] and alone.partners == read.partners


def test_a_special_token_without_a_partner_is_read_over_and_its_own_state_meets_nothing():
    made = both("byte-level BPE", "SentencePiece with bytes")
    pad = made.student.pad_token_id
    nothing = SpecialTokens({**made.marks, pad: None}, ())
    cat, sat = made.ids("cat"), made.ids(" sat")
    own = OwnTokens(made.student, made.teacher, nothing)
    read, plain = own.read([*cat, pad, *sat]), own.read([*cat, *sat])
    assert read.ids == plain.ids
    at = len(cat)
    # The state before it has read what the teacher has; the one after it has read it besides.
    assert read.partners == [*plain.partners[: at + 1], NONE, *plain.partners[at + 1 :]]


def test_a_beginning_token_of_the_teacher_is_no_part_of_the_response():
    made = both("qwen3", "gemma3")
    first, *others = made.teacher("hi")["input_ids"]
    assert first == made.teacher.bos_token_id
    assert made.own.read(made.ids("hi")).ids == others


def test_a_teacher_without_room_reads_as_far_as_it_can():
    made = both("byte-level BPE", "characters")
    ids = made.ids("the cat sat", end=True)
    whole, cut = made.own.read(ids), made.own.read(ids, most=4)
    assert cut.ids == whole.ids[:4]
    assert cut.partners == [u if u <= 4 else NONE for u in whole.partners]


def test_states_that_meet_at_the_ends_alone_are_told():
    made = both("byte-level BPE", "characters")
    assert not made.own.read(made.ids("the cat", end=True)).only_ends
    other = both("characters", "byte-level BPE")
    assert not other.own.read(other.ids("the cat the", end=True)).only_ends
    assert not other.own.read(other.ids("a", end=True)).only_ends


def test_words_cut_otherwise_meet_at_the_ends_alone():
    """Two tokens each, cut at other places."""
    made = both("byte-level BPE", "SentencePiece with bytes")
    own = OwnTokens(made.student, made.teacher, SpecialTokens(made.marks, ()))
    own._student._known = {900: b"ab", 901: b"c"}
    own._teacher.encode = lambda text: [900, 901] if text else []
    own._teacher._known = {900: b"a", 901: b"bc"}
    end = made.student.eos_token_id
    assert own.read([900, 901, end]) == Reread(
        [900, 901, made.marks[end]], [0, NONE, 2], [0, 1, 2], [b"", b"b", b""], True
    )
    own._student._known = {900: b"abc"}
    assert not own.read([900, end]).only_ends


def test_tokens_that_both_spell_alike_are_each_once_in_either_vocabulary():
    made = both("byte-level BPE", "SentencePiece with bytes")
    twice = SpecialTokens({0: made.teacher.eos_token_id, 1: made.teacher.eos_token_id, 2: None}, ())
    ours, theirs = OwnTokens(made.student, made.teacher, twice).common()
    assert len(set(ours.tolist())) == len(ours) == len(theirs) == len(set(theirs.tolist()))
    assert (0, made.teacher.eos_token_id) in zip(ours.tolist(), theirs.tolist(), strict=True)
    of_both = zip(made.bytes, (int(ours[5]), int(theirs[5])), strict=True)
    spelled = [known[token] for known, token in of_both]
    assert spelled[0] == spelled[1] != b""


def test_nothing_is_read_of_nothing():
    assert both("characters", "byte-level BPE").own.read([]) == Reread([], [], [], [])


@pytest.mark.parametrize(
    "kinds",
    [("byte-level BPE", "SentencePiece with bytes"), ("qwen3", "gemma3"), ("gemma3", "llama3")],
    ids=" → ".join,
)
def test_tokens_that_both_spell_alike_are_those_that_both_write(kinds):
    """A vocabulary with bytes for what it has no token for spells some characters twice."""
    made = both(*kinds)
    common = dict(zip(*(ids.tolist() for ids in made.own.common()), strict=True))
    for letter in "4ae,. ":
        (ours,) = made.bytes[0].encode(letter.encode())
        (theirs,) = made.bytes[1].encode(letter.encode())
        assert common[ours] == theirs
