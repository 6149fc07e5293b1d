"""A teacher's own prompts: where they come from, how they end, and what is refused."""

import copy

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from oprd.prompts.teacher import TeacherPrompts
from tests import tiny

SOLVED = {"prompt": "2 + 2?", "solution": "It is 4.", "answer": "4"}
CHAT = [{"role": "user", "content": "2 + 2?"}]
SYSTEM = [{"role": "system", "content": "Be brief."}, *CHAT]
TURNS = "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
ADDS = (
    TURNS + "{% if add_generation_prompt %}<assistant>{% if think %}<think>\n{% endif %}{% endif %}"
)
# Templates that add or strip text where the response begins.
TEMPLATES = {
    "adds": ADDS,
    "strips": "{% for m in messages %}{{ m.content | trim }} {% endfor %}"
    "{% if add_generation_prompt %}\n\nA:{% endif %}",
    "adds nothing": TURNS,
    "ends otherwise with a solution": TURNS + "{% if add_generation_prompt %}"
    "{{ '<hinted>' if 'Hint' in messages[-1].content else '<assistant>' }}{% endif %}",
}


def tokenizer(template=ADDS):
    made = copy.deepcopy(tiny.tokenizer())
    made.chat_template = template
    return made


def text(made, prompts):
    return [made.decode(ids) for ids in prompts]


def test_a_row_without_prompts_of_its_own_is_read_as_the_student_reads_it():
    own = TeacherPrompts(tokenizer())
    assert not own.differ(["prompt", "answer"]) and own.batch([SOLVED]) is None
    assert own.of(SOLVED) == ["2 + 2?"]


def test_columns_of_its_own_take_the_place_of_the_prompt():
    own = TeacherPrompts(tokenizer())
    assert own.differ(["prompt", "teacher_prompt"]) and own.differ(["teacher_prompts"])
    assert own.of({**SOLVED, "teacher_prompt": "4. 2 + 2?"}) == ["4. 2 + 2?"]
    assert own.of({**SOLVED, "teacher_prompts": ["a?", "b?"]}) == ["a?", "b?"]


def test_a_template_is_given_every_column():
    template = "{{ prompt }}\nHint: {{ solution }}"
    own = TeacherPrompts(tokenizer(), template=template)
    assert own.of(SOLVED) == ["2 + 2?\nHint: It is 4."]
    assert own.of({**SOLVED, "prompt": SYSTEM}) == [
        [SYSTEM[0], {"role": "user", "content": "2 + 2?\nHint: It is 4."}]
    ]


@pytest.mark.parametrize("prompt", [CHAT, SYSTEM])
def test_a_system_message_is_added_or_takes_the_place_of_the_students(prompt):
    own = TeacherPrompts(tokenizer(), system="The answer is {{ answer }}.")
    system = {"role": "system", "content": "The answer is 4."}
    assert own.of({**SOLVED, "prompt": prompt}) == [[system, *CHAT]]
    with pytest.raises(ValueError, match="teacher_system_prompt is for prompts that are chat"):
        own.of(SOLVED)


def test_its_chat_template_may_be_given_other_options():
    made = tokenizer()
    own = TeacherPrompts(made, {"think": False}, {"think": True})
    (read,) = text(made, own.tokens({"prompt": CHAT}))
    assert read == "<user>2 + 2?\n<assistant><think>\n"


CONTENT = st.text(st.characters(codec="ascii", exclude_categories=["C"]), min_size=1).filter(
    lambda t: t.strip()
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(TEMPLATES)), CONTENT, CONTENT)
def test_the_response_begins_alike_after_both_prompts_or_an_error_shows_both(name, asked, hint):
    made = tokenizer(TEMPLATES[name])
    own = TeacherPrompts(made, template="{{ hint }}{{ prompt }}")
    row = {"prompt": [{"role": "user", "content": asked}], "hint": hint}
    given = made.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
    opening = {"adds": "<assistant>", "strips": "\nA:", "adds nothing": "\n"}.get(name)
    (read,) = text(made, own.tokens(row))
    assert hint.strip() in read
    assert opening is None or (read.endswith(opening) and given.endswith(opening))


def test_a_template_that_ends_otherwise_is_refused_with_both_ends():
    made = tokenizer(TEMPLATES["ends otherwise with a solution"])
    own = TeacherPrompts(made, template="{{ prompt }} Hint: {{ solution }}")
    with pytest.raises(ValueError, match=r"<hinted>' as the teacher.*begins after '<assistant>'"):
        own.tokens({**SOLVED, "prompt": CHAT})


def test_text_that_ends_in_another_space_is_refused():
    own = TeacherPrompts(tokenizer(), template="{{ solution }} {{ prompt }} A: ")
    with pytest.raises(ValueError, match=r"ends in 'It is 4. 2 \+ 2\? A: ' as the teacher"):
        own.tokens(SOLVED)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"teacher_prompt": None}, "the teacher_prompt is missing"),
        ({"teacher_prompt": " "}, "the teacher_prompt is empty"),
        ({"teacher_prompt": 3}, "the teacher_prompt is int 3, not text"),
        ({"teacher_prompt": CHAT}, "the teacher_prompt is messages and the prompt is text"),
        ({"teacher_prompts": []}, "no list of teacher_prompts"),
        ({"teacher_prompts": None}, "no list of teacher_prompts"),
        ({"teacher_prompts": ["a", None]}, "the teacher_prompt is missing"),
    ],
)
def test_a_row_that_holds_no_prompt_for_the_teacher_is_refused_with_its_number(row, problem):
    dataset = Dataset.from_list([{"prompt": "a?", **row}])
    own = TeacherPrompts(tokenizer())
    with pytest.raises(ValueError, match=f"training prompt 0 .*{problem}"):
        own.fitting(dataset, "training", drop=False)
    with pytest.raises(ValueError, match="no training prompt is left of 1"):
        own.fitting(dataset, "training", drop=True)


def test_an_unknown_column_of_a_template_is_named_with_those_that_are_there():
    own = TeacherPrompts(tokenizer(), template="{{ prompt }} {{ solutoin }}")
    with pytest.raises(ValueError, match=r"names 'solutoin'.*'prompt', 'solution', 'answer'"):
        own.fitting(Dataset.from_list([SOLVED]), "training", drop=False)


def test_a_template_does_not_write_none_where_a_row_lacks_a_column():
    made = TeacherPrompts(tiny.tokenizer(), template="{{ solution }} {{ prompt }}")
    rows = [SOLVED, {**SOLVED, "solution": None}]
    said = r"prompt 1 .* has no prompt by teacher_template: what it would write is missing"
    with pytest.raises(ValueError, match=said):
        made.fitting(Dataset.from_list(rows), "training", drop=False)
    asks = "{% if solution %}{{ solution }} {% endif %}{{ prompt }}"
    assert TeacherPrompts(tiny.tokenizer(), template=asks).of(rows[1]) == ["2 + 2?"]


def test_two_sources_of_one_prompt_are_refused():
    both = Dataset.from_list([{"prompt": "a?", "teacher_prompt": "b?", "teacher_prompts": ["c?"]}])
    with pytest.raises(ValueError, match="have teacher_prompt and teacher_prompts"):
        TeacherPrompts(tokenizer()).fitting(both, "training", drop=False)
    one = Dataset.from_list([{"prompt": "a?", "teacher_prompt": "b?"}])
    with pytest.raises(ValueError, match="have teacher_prompt and teacher_template"):
        TeacherPrompts(tokenizer(), template="{{ prompt }}").fitting(one, "training", drop=False)
    own = TeacherPrompts(tokenizer(), template="{{ teacher_prompt }}")
    own.fitting(one, "training", drop=False)
    assert own.of(one[0]) == ["b?"]


def test_a_prompt_beyond_the_teachers_context_is_named_or_left_out():
    rows = [{"prompt": "a?", "teacher_prompt": "b?" * n} for n in (2, 9)]
    own = TeacherPrompts(tokenizer(), context=20, longest=8)
    with pytest.raises(ValueError, match=r"prompt 1 .*has 18 tokens.*that is 26.*reads 20 at most"):
        own.fitting(Dataset.from_list(rows), "training", drop=False)
    assert len(own.fitting(Dataset.from_list(rows), "training", drop=True)) == 1


def test_a_batch_has_the_number_of_prompts_that_was_met_first():
    rows = [{"prompt": "a?", "teacher_prompts": ["b?"] * n} for n in (1, 2)]
    own = TeacherPrompts(tokenizer())
    own.fitting(Dataset.from_list(rows), "training", drop=False)
    assert own.count == 2
    assert [len(several) for several in own.batch(rows)] == [1, 2]
    with pytest.raises(ValueError, match="more than 1 teacher_prompts, as the first one had"):
        TeacherPrompts(tokenizer()).batch(rows)


@pytest.mark.parametrize("source", ["{{ prompt", "{% if %}"])
def test_what_is_no_template_is_refused(source):
    with pytest.raises(ValueError, match="teacher_template is no Jinja template: line 1"):
        TeacherPrompts(tokenizer(), template=source)


def test_a_template_cannot_reach_out_of_its_sandbox():
    own = TeacherPrompts(tokenizer(), template="{{ prompt.__class__.__mro__ }}")
    with pytest.raises(ValueError, match="has no prompt by teacher_template"):
        own.of(SOLVED)


def test_a_stream_is_counted_from_the_first_row_that_is_the_teachers():
    """Rows of other teachers before it say nothing of how many prompts there are."""
    several = TeacherPrompts(tiny.tokenizer())
    rows = [{"prompt": "p", "teacher_prompts": ["a", "b"], "teacher": n} for n in ("x", "x", "y")]

    def teaches(row):
        return row["teacher"] == "y"

    assert several.batch(rows[:2], teaches, 7) == [[[7]], [[7]]] and several.count is None
    found = several.batch(rows, teaches, 7)
    assert found[:2] == [[[7]], [[7]]] and len(found[2]) == 2 == several.count
    rows[2]["teacher_prompts"] = ["a", "b", "c"]
    with pytest.raises(ValueError, match="more than 2 teacher_prompts"):
        several.batch(rows, teaches, 7)
