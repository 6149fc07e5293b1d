"""Which tokens of two vocabularies are one action, by the texts that they begin."""

import copy

import pytest
import torch
from tokenizers import Tokenizer, decoders
from tokenizers.models import BPE

from oprd.models.own_tokens import OwnTokens
from oprd.models.special_tokens import SpecialTokens
from oprd.models.token_bytes import TokenBytes
from oprd.models.token_classes import TokenClasses
from tests import tiny
from tests.models.built_tokenizers import BUILT, characters, merging, real, tokenizer, wrapped
from tests.models.test_own_tokens import PAIRS, REAL_PAIRS


def of(student, teacher, extra=0):
    """The classes of two tokenizers, whose LM heads have so many rows more."""
    stops = {student.eos_token_id}, {teacher.eos_token_id}
    own = OwnTokens(student, teacher, SpecialTokens.of(student, teacher, stops))
    sizes = len(student) + extra, len(teacher) + extra
    known = TokenBytes(student), TokenBytes(teacher)
    return TokenClasses(known, own.common(), sizes, stops).met, own, known


def test_a_token_of_one_model_joins_that_with_which_the_other_begins_its_text():
    """The student has ab beside a, b and c, the teacher bc."""
    student, teacher = merging("a", "b"), merging("b", "c")
    found, *_ = of(student, teacher)
    ours, theirs = (
        {name: int(members[t.convert_tokens_to_ids(name)]) for name in names}
        for t, members, names in (
            (student, found.student, ("a", "b", "c", "ab", "<eos>")),
            (teacher, found.teacher, ("a", "b", "c", "bc", "<eos>")),
        )
    )
    assert ours["ab"] == ours["a"] == theirs["a"]
    assert theirs["bc"] == theirs["b"] == ours["b"]
    assert ours["c"] == theirs["c"] and ours["<eos>"] == theirs["<eos>"]
    assert len({ours[name] for name in ("a", "b", "c", "<eos>")}) == 4


@pytest.mark.parametrize("kinds", [*PAIRS, *REAL_PAIRS], ids=" → ".join)
def test_every_token_has_a_class_whose_members_begin_alike(kinds):
    student, teacher = map(tokenizer, kinds)
    found, own, known = of(student, teacher)
    assert len(found.student) == len(student) and len(found.teacher) == len(teacher)
    ours, theirs = own.common()
    assert torch.equal(found.student[ours], found.teacher[theirs])
    # Of what both spell alike no two tokens are one action.
    assert len(set(found.student[ours].tolist())) == len(ours)
    heads = {int(found.student[o]): known[0][int(o)] for o in ours}
    for side, members in enumerate((found.student, found.teacher)):
        for token, number in enumerate(members.tolist()[:: max(1, len(members) // 2000)]):
            token *= max(1, len(members) // 2000)
            if piece := known[side][token]:
                assert number not in heads or piece.startswith(heads[number])


@pytest.mark.parametrize("kind", sorted(set(BUILT) - {"characters"}))
def test_to_a_student_of_characters_a_token_is_its_first_one(kind):
    student, teacher = characters(), tokenizer(kind)
    found, _, known = of(student, teacher)
    letters = {known[0][letter]: letter for letter in range(len(student)) if known[0][letter]}
    begun = [token for token in range(len(teacher)) if known[1][token][:1] in letters]
    assert len(begun) > 26
    for token in begun:
        assert found.teacher[token] == found.student[letters[known[1][token][:1]]]


def test_all_tokens_at_which_a_model_stops_are_one_action():
    student, teacher = tiny.tokenizer(), tokenizer("SentencePiece with bytes")
    own = OwnTokens(student, teacher, SpecialTokens({}, ()))
    known, sizes = (TokenBytes(student), TokenBytes(teacher)), (len(student), len(teacher))
    pad = teacher.pad_token_id
    special = SpecialTokens.of(student, teacher, ({tiny.EOS}, {teacher.eos_token_id}))
    own.special = special
    stops = {tiny.EOS}, {teacher.eos_token_id, pad}
    found = TokenClasses(known, own.common(), sizes, stops).met
    assert found.student[tiny.EOS] == found.teacher[teacher.eos_token_id] == found.teacher[pad]
    apart = TokenClasses(known, own.common(), sizes).met
    assert apart.teacher[pad] != apart.teacher[teacher.eos_token_id]


def test_rows_of_a_head_without_a_token_and_what_only_one_model_can_spell_are_of_no_class():
    found, *_ = of(characters(), tokenizer("byte-level BPE"), extra=3)
    none = found.count
    assert found.student[-3:].tolist() == found.teacher[-3:].tolist() == [none] * 3
    # No character stands for the first byte of 日.
    bytes_ = TokenBytes(tokenizer("byte-level BPE"))
    lone = next(t for t in range(len(found.teacher)) if bytes_[t] == "日".encode()[:1])
    assert found.teacher[lone] == none


@pytest.mark.parametrize(("student", "teacher"), REAL_PAIRS)
def test_of_real_vocabularies_little_is_left_out(student, teacher):
    found, *_ = of(real(student), real(teacher))
    for members in (found.student, found.teacher):
        assert (members == found.count).float().mean() < 0.02


DEVICE = torch.device("cpu")


def ahead(student, teacher, bytes_):
    """The classes where the student is ahead, and both vocabularies."""
    own = OwnTokens(student, teacher, SpecialTokens({}, ()))
    known = TokenBytes(student), TokenBytes(teacher)
    made = TokenClasses(known, own.common(), (len(student), len(teacher)))
    return made.after(bytes_, DEVICE), student.get_vocab(), teacher.get_vocab()


def test_within_a_token_of_the_teacher_its_longer_tokens_say_how_they_go_on():
    """Of what begins with b the teacher has b alone and bc."""
    found, ours, theirs = ahead(merging("a", "b"), merging("b", "c"), b"b")
    assert found.count == 2
    on, otherwise = int(found.teacher[theirs["bc"]]), int(found.teacher[theirs["b"]])
    assert {on, otherwise} == {0, 1}
    # What does not begin with b is of no class: that the student has written b is given.
    assert {int(found.teacher[theirs[name]]) for name in ("a", "c", "<eos>")} == {2}
    assert int(found.student[ours["c"]]) == on
    assert {int(found.student[ours[name]]) for name in ("a", "b", "ab", "<eos>")} == {otherwise}


def test_a_single_way_to_go_on_is_nothing_to_compare():
    assert ahead(merging("a", "b"), merging("b", "c"), b"c")[0] is None
    assert ahead(merging("a", "b"), merging("b", "c"), b"bc")[0] is None


def test_where_the_teacher_cannot_stop_other_ways_are_of_no_class():
    """Of the first byte of two characters the teacher has their first two, and not it alone."""
    student = tokenizer("byte-level BPE")
    found, *_ = ahead(student, characters("éèa"), "é".encode()[:1])
    assert found.count == 2
    known = TokenBytes(student)
    ways = [known[t] for t in range(len(student)) if int(found.student[t]) < 2]
    assert ways and all(way[:1] in ("é".encode()[1:], "è".encode()[1:]) for way in ways)


@pytest.mark.parametrize("kinds", [*PAIRS, *REAL_PAIRS], ids=" → ".join)
def test_what_the_student_goes_on_with_is_in_the_class_of_the_teachers_token(kinds):
    """Of every token of the teacher's, and every place within it."""
    student, teacher = map(tokenizer, kinds)
    known = TokenBytes(student), TokenBytes(teacher)
    own = OwnTokens(student, teacher, SpecialTokens({}, ()))
    made = TokenClasses(known, own.common(), (len(student), len(teacher)))
    compared = 0
    for token in range(0, len(teacher), max(1, len(teacher) // 300)):
        piece = known[1][token]
        for place in range(1, len(piece)):
            found = made.after(piece[:place], DEVICE)
            begun = known[0].encode(piece[place:])[:1]
            if found is not None and begun:
                compared += 1
                number = int(found.teacher[token])
                assert number == found.student[begun[0]] < found.count
    assert compared > 10


def named(names, *merges):
    """A vocabulary of words and their parts."""
    backend = Tokenizer(BPE({name: n for n, name in enumerate(names)}, list(merges)))
    backend.decoder = decoders.Fuse()
    return wrapped(backend)


def test_a_token_of_the_student_that_goes_on_beyond_the_teachers_goes_on_with_it():
    """The student writes com, poses; the teacher comp, oses: its comp says that poses follows."""
    student = named(["c", "o", "m", "p", "s", "com", "poses", "<pad>", "<eos>"])
    # The teacher has poses, too, so that by itself it is another action than p.
    teacher = named(["c", "o", "m", "p", "s", "com", "comp", "poses", "<pad>", "<eos>"])
    found, ours, theirs = ahead(student, teacher, b"com")
    on, otherwise = int(found.teacher[theirs["comp"]]), int(found.teacher[theirs["com"]])
    assert {on, otherwise} == {0, 1}
    assert {int(found.student[ours[name]]) for name in ("p", "poses")} == {on}
    assert {int(found.student[ours[name]]) for name in ("c", "s", "com")} == {otherwise}


def test_tokens_beyond_the_rows_of_a_head_are_none():
    student, teacher = merging("a", "b"), merging("b", "c")
    own = OwnTokens(student, teacher, SpecialTokens({}, ()))
    known = TokenBytes(student), TokenBytes(teacher)
    made = TokenClasses(known, own.common(), (2, len(teacher)))
    # The student's head has no row for c.
    assert made.after(b"b", DEVICE) is None


def test_a_special_token_that_is_mapped_to_an_ordinary_one_is_its_only_partner():
    student, teacher = merging("a", "b"), merging("b", "c")
    a = teacher.convert_tokens_to_ids("a")
    own = OwnTokens(student, teacher, SpecialTokens({student.eos_token_id: a}, ()))
    ours, theirs = own.common()
    assert len(set(theirs.tolist())) == len(theirs)
    assert theirs[ours == student.eos_token_id].tolist() == [a]


def test_a_token_after_which_something_follows_is_no_end():
    """The teacher stops at the end of a message as well, where a tool is called."""
    student, message = tiny.tokenizer(), "<|eom_id|>"
    teacher = copy.deepcopy(tokenizer("SentencePiece with bytes"))
    teacher.add_special_tokens({"additional_special_tokens": [message]})
    models = tiny.model(), tiny.reading(teacher)
    stops = [teacher.eos_token_id, teacher.convert_tokens_to_ids(message)]
    models[1].generation_config.eos_token_id = stops
    own = OwnTokens.of(models, (student, teacher))
    met = own.aligned((len(student), len(teacher))).classes.met
    ends = [int(met.teacher[end]) for end in stops]
    assert ends == [int(met.student[tiny.EOS]), met.count]
