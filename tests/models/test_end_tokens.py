"""Where two models stop."""

from types import SimpleNamespace

import pytest

from oprd.models.end_tokens import EndTokens, stop_at_either
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


def run(**vllm):
    """A trainer as far as it is set up here, whose engine is vLLM's."""
    return SimpleNamespace(
        eos_token_ids=[0],
        generation_config=SimpleNamespace(eos_token_id=[0]),
        generation_kwargs={},
        model=model(0),
        use_vllm=True,
        vllm_generation=SimpleNamespace(generation_kwargs=vllm),
    )


def test_every_teachers_end_tokens_reach_the_engine_beside_those_of_the_settings():
    made = run(stop_token_ids=[9], seed=1)
    given = made.vllm_generation.generation_kwargs
    for theirs in (1, 3):
        student = [*made.model.generation_config.eos_token_id]
        stop_at_either(made, ends(student, (theirs,)))
    engine = made.vllm_generation.generation_kwargs
    assert engine == {"stop_token_ids": [9, 0, 1, 3], "seed": 1}
    assert made.eos_token_ids == made.model.generation_config.eos_token_id == [0, 1, 3]
    # The settings' own.
    assert given == {"stop_token_ids": [9], "seed": 1}


def test_where_only_the_end_of_a_message_differs_nothing_is_joined_and_nothing_said(caplog):
    made = run()
    stop_at_either(made, ends((0,), (0, 2)))
    assert made.vllm_generation.generation_kwargs == {} and made.eos_token_ids == [0]
    assert not caplog.text
