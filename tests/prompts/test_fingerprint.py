"""What the teacher reads is known by its columns, whatever else a dataset holds."""

import pytest
from datasets import Dataset

from oprd.prompts.fingerprint import prompts_fingerprint, teacher_prompts_facts
from oprd.prompts.teacher import TeacherPrompts

ROWS = {"prompt": ["a", "b"], "solution": ["1", "2"], "other": ["x", "y"]}
OWN = {"teacher_prompt": ["c", "d"]}
OTHER = {"teacher_prompt": ["c", "e"]}


def facts(columns, template=None):
    prompts = TeacherPrompts(None, template=template)
    named = {"prompt", "solution"} if template else set()
    return teacher_prompts_facts(Dataset.from_dict(columns), prompts.differ, named)


def test_a_teacher_of_the_students_prompts_is_told_from_one_with_its_own():
    assert facts(ROWS) == facts({**ROWS, "prompt": ["c", "d"]}) == {"read": "the student's"}
    assert facts({**ROWS, **OWN})["read"] == "its own"


@pytest.mark.parametrize(
    ("columns", "template"), [(OWN, None), ({}, "{{ prompt }} {{ solution }}")], ids=str
)
def test_columns_that_nobody_reads_do_not_matter(columns, template):
    before = facts({**ROWS, **columns}, template)
    assert facts({**ROWS, **columns, "other": ["z", "z"]}, template) == before
    assert before["rows"] == 2


def test_other_prompts_and_other_columns_of_a_template_are_seen():
    assert facts({**ROWS, **OWN}) != facts({**ROWS, **OTHER})
    template = "{{ prompt }} {{ solution }}"
    assert facts(ROWS, template) != facts({**ROWS, "solution": ["1", "3"]}, template)


def test_a_template_without_columns_is_known_by_itself():
    prompts = TeacherPrompts(None, system="Be brief.")
    assert teacher_prompts_facts(Dataset.from_dict(ROWS), prompts.differ, set()) == {
        "read": "its own"
    }


def test_of_a_stream_it_is_known_that_the_teacher_has_its_own():
    stream = Dataset.from_dict({**ROWS, **OWN}).to_iterable_dataset()
    assert prompts_fingerprint(stream) is None
    found = teacher_prompts_facts(stream, TeacherPrompts(None).differ, set())
    assert found == {"read": "its own"}
