import pytest
from tokenizers import Tokenizer

from oprd.models.special_tokens import ROLES, STOPS, SpecialTokens
from tests.models.built_tokenizers import byte_level, real, sentencepiece, wrapped


def special(student, teacher, given=None, stops=None):
    stops = stops or ({student.eos_token_id}, {teacher.eos_token_id})
    return SpecialTokens.of(student, teacher, stops, given)


def fresh(make=byte_level, end="<eos>"):
    """One that a test may add tokens to."""
    return wrapped(Tokenizer.from_str(make(end=end).backend_tokenizer.to_str()), end)


def test_every_role_is_one_of_a_few():
    assert {*ROLES.values()} == {
        "end of text", "end of turn", "end of role", "end of message", "beginning of thought",
        "end of thought",
    }  # fmt: skip
    assert set(STOPS) <= {*ROLES.values()}


def test_ends_of_turn_meet_by_their_role_however_they_are_spelled():
    student, teacher = fresh(end="<|im_end|>"), fresh(sentencepiece, end="<end_of_turn>")
    assert special(student, teacher).partners[student.eos_token_id] == teacher.eos_token_id


def test_the_end_of_a_text_meets_the_end_of_a_turn_where_the_models_stop_there():
    student, teacher = fresh(end="<|endoftext|>"), fresh(end="<end_of_turn>")
    found = special(student, teacher)
    assert found.partners[student.eos_token_id] == teacher.eos_token_id


def test_a_name_goes_before_a_role_and_a_setting_before_both():
    student, teacher = fresh(end="<|im_end|>"), fresh(end="<end_of_turn>")
    teacher.add_tokens(["<|im_end|>", "<other>"], special_tokens=True)
    ours = student.eos_token_id
    by_name, other = (teacher.convert_tokens_to_ids(n) for n in ("<|im_end|>", "<other>"))
    assert special(student, teacher).partners[ours] == by_name
    assert special(student, teacher, {"<|im_end|>": "<other>"}).partners[ours] == other
    assert special(student, teacher, {"<|im_end|>": None}).partners[ours] is None


def test_one_without_a_partner_is_named_and_read_as_nothing():
    student, teacher = fresh(), fresh()
    student.add_tokens(["<|box_start|>"], special_tokens=True)
    found = special(student, teacher)
    assert found.partners[student.convert_tokens_to_ids("<|box_start|>")] is None
    assert "reads nothing in their place: <|box_start|>;" in found.words()


def test_what_meets_what_is_said_with_its_role():
    student, teacher = fresh(end="<|im_end|>"), fresh(end="<end_of_turn>")
    assert "<|im_end|> (end of turn) → <end_of_turn>" in special(student, teacher).words()


def test_added_text_that_both_spell_alike_stays_text():
    """Qwen's <think> is text to its tokenizer; a teacher with the same token reads it as that."""
    student, teacher = fresh(), fresh()
    student.add_tokens(["<think>"])
    teacher.add_tokens(["<think>"])
    assert student.convert_tokens_to_ids("<think>") not in special(student, teacher).partners


def test_a_thought_begins_as_the_teacher_spells_it():
    student, teacher = fresh(), fresh()
    student.add_tokens(["<think>", "<plain>"])
    teacher.add_tokens(["[THINK]"], special_tokens=True)
    found = special(student, teacher).partners
    assert found[student.convert_tokens_to_ids("<think>")] == teacher.convert_tokens_to_ids(
        "[THINK]"
    )
    assert student.convert_tokens_to_ids("<plain>") not in found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"<nowhere>": "<eos>"}, "'<nowhere>', which is no token of the student"),
        ({"<eos>": "<nowhere>"}, "'<nowhere>', which is no token of the teacher"),
    ],
)
def test_a_token_that_is_not_there_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        special(fresh(), fresh(), given)


def test_real_families_end_their_turns_alike():
    qwen, gemma, llama = real("qwen3"), real("gemma3"), real("llama3")
    stops = (
        {qwen.convert_tokens_to_ids("<|im_end|>")},
        {gemma.convert_tokens_to_ids(name) for name in ("<eos>", "<end_of_turn>")},
    )
    found = special(qwen, gemma, stops=stops).partners
    assert found[qwen.convert_tokens_to_ids("<|im_end|>")] == gemma.convert_tokens_to_ids(
        "<end_of_turn>"
    )
    found = special(gemma, llama, stops=({1}, {llama.convert_tokens_to_ids("<|eot_id|>")})).partners
    assert found[gemma.convert_tokens_to_ids("<end_of_turn>")] == llama.convert_tokens_to_ids(
        "<|eot_id|>"
    )
