import pytest
from datasets import Dataset

from oprd.prompts.routes import Routes, check_groups


def test_the_shares_of_a_row_sum_to_one_and_follow_the_weights():
    routes = Routes({"a": 3, "b": 1, "c": None})
    assert routes.shares({"teacher": "b"}) == [0, 1, 0]
    assert routes.shares({"teacher": ["a", "b"]}) == [0.75, 0.25, 0]
    assert routes.shares({"teacher": ["b", "c"]}) == [0, 0.5, 0.5]
    assert Routes({"a": 3, "b": 1}).shares({}) == [0.75, 0.25]


def test_a_teacher_of_no_weight_teaches_what_is_its_alone():
    routes = Routes({"a": 0, "b": 1})
    assert routes.shares({"teacher": "a"}) == [1, 0]
    assert routes.shares({"teacher": ["a", "b"]}) == [0, 1]
    with pytest.raises(ValueError, match="the teachers a, c, whose weights sum to 0"):
        Routes({"a": 0, "b": 1, "c": 0}).shares({"teacher": ["a", "c"]})


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        ("x", "names the teacher 'x', and there are a, b"),
        (["a", "x"], "names the teacher 'x'"),
        (None, "names no teacher in its column 'teacher'"),
        ([], "names no teacher"),
    ],
)
def test_a_row_without_a_teacher_is_named(found, problem):
    first = "a" if isinstance(found, str) else ["a"]
    rows = Dataset.from_dict({"prompt": ["1", "2"], "teacher": [first, found]})
    with pytest.raises(ValueError, match=f"training prompt 1 {problem}"):
        Routes({"a": None, "b": None}).check_rows(rows, "training")


def test_prompts_without_the_column_need_weights():
    Routes({"a": 1, "b": 1}).check(["prompt"])
    with pytest.raises(ValueError, match=r"no column 'teacher' .* \(their columns: 'prompt'\)"):
        Routes({"a": 1, "b": None}).check(["prompt"])


def test_too_few_prompts_for_an_update_are_named_with_their_teacher():
    rows = Dataset.from_dict({"prompt": list("123"), "teacher": ["a", "b", "a"]})
    groups = Routes({"a": None, "b": None}).groups(rows)
    assert groups == [("a",), ("b",), ("a",)]
    check_groups(groups, 1)
    with pytest.raises(ValueError, match="the teacher b has 1 prompts, and an update of its own"):
        check_groups(groups, 2)
