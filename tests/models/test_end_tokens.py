"""Where two models stop."""

import pytest

from oprd.models.end_tokens import EndTokens
from tests import tiny


class Named:
    """A tokenizer as far as it is asked here."""

    def __init__(self, *names, end=0):
        self.names, self.eos_token_id = names, end

    def __len__(self):
        return len(self.names)

    def convert_ids_to_tokens(self, token):
        return self.names[token]


NAMES = ("<|endoftext|>", "<|im_end|>", "<|eom_id|>", "<end>")


def model(*ends):
    made = tiny.model()
    made.generation_config.eos_token_id = list(ends) or None
    return made


def ends(student, teacher, end=0, theirs=None):
    own = Named(*NAMES, end=end)
    other = None if theirs is None else Named(*NAMES, end=theirs)
    return EndTokens.of(model(*student), model(*teacher), own, other)


def test_equal_ends_leave_everything_as_it_is():
    found = ends((0,), (0,), theirs=0)
    assert found.difference() is None and found.joined == (0,)
    assert ends((0, 1), (1,)).difference() is None


def test_what_differs_is_said_with_the_tokens_roles_and_both_are_joined():
    found = ends((), (1, 0), theirs=1)
    assert found.joined == (0, 1)
    said = found.difference()
    assert "student stops at <|endoftext|> (end of text)" in said
    assert "teacher at <|endoftext|> (end of text) or <|im_end|> (end of turn)" in said


def test_a_token_without_a_role_is_shown_by_its_name():
    assert "the teacher at <end>." in ends((), (3,)).difference()


def test_the_end_of_a_message_ends_no_response():
    assert ends((), (1, 2)).joined == (0, 1)
    # Unless the student is set up to stop there.
    assert ends((2,), (1,)).joined == (0, 2, 1)


def test_an_id_that_the_student_does_not_know_is_left_out():
    assert ends((), (7,)).difference() is None


def test_a_teacher_without_a_tokenizer_says_by_its_model_where_it_stops():
    assert ends((), (1,)).teacher == (1,)
    assert ends((), ()).teacher == ()


def test_a_student_without_any_end_is_refused():
    with pytest.raises(ValueError, match="no end token"):
        EndTokens.of(model(), model(1), Named(*NAMES, end=None))
