import json
import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from oprd.evaluation.grading import Grade
from oprd.evaluation.selftest import changed, self_test
from oprd.evaluation.tasks import arithmetic, mathematics, reasoning
from oprd.evaluation.tasks.base import Problem, Task, Template, shared_prompts
from oprd.evaluation.tasks.load import load_task
from oprd.prompts.load import load_prompts

INSTRUCTION = mathematics.INSTRUCTION
DATA = os.environ.get("OPRD_TEST_DATA")


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return path


def user(content: object) -> list[dict]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    "row",
    [
        {"problem": "1+1?", "answer": "2"},
        {"question": "1+1?", "answer": "One and one.\n#### 2"},
        {"problem": "1+1?", "answer": 2},
        {"prompt": f"1+1? {INSTRUCTION}", "answer": "2"},
        {"prompt": user("1+1?"), "reward_model": {"ground_truth": "2"}},
        {"prompt": user(f"1+1? {INSTRUCTION}"), "reward_model": {"ground_truth": "2"}},
        {"prompt": user(f"1+1? {INSTRUCTION.replace('{}', '{{}}')}"), "answer": "2"},
    ],
)
def test_every_layout_gives_the_same_problem(tmp_path: Path, row: dict) -> None:
    jsonl = write(tmp_path / "sums.jsonl", row)
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "sums.parquet")
    for name in (str(jsonl), f"own={tmp_path / 'sums.parquet'}"):
        task = load_task(name)
        assert task.problems == (Problem("0", user(f"1+1? {INSTRUCTION}"), "2"),)
    assert "sums.parquet, sha256" in task.source and str(tmp_path) not in task.source
    assert load_task(str(jsonl)).rows() == [{"prompt": user(f"1+1? {INSTRUCTION}"), "answer": "2"}]


def test_a_system_message_stays(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    path = write(tmp_path / "t.jsonl", {"prompt": [system, *user("1?")], "answer": "1"})
    assert load_task(str(path)).problems[0].prompt == [system, *user(f"1? {INSTRUCTION}")]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "1?"}, "answer or reward_model.ground_truth"),
        ({"answer": "1"}, "prompt, problem or question"),
        ({"problem": None, "answer": "1"}, "got None"),
        ({"problem": " ", "answer": "1"}, "got ' '"),
        ({"problem": "1?", "answer": ""}, "got ''"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "answer": "1"}, "assistant"),
        ({"prompt": [*user("a"), *user("b")], "answer": "1"}, "in turn"),
        ({"prompt": user(None), "answer": "1"}, "got None"),
        ({"prompt": ["x"], "answer": "1"}, "list of messages"),
        ({"problem": "1?", "answer": "?"}, r"the gold answer '\?' cannot be parsed"),
        ({"problem": "1?", "answer": "7 3"}, "the gold answer '7 3' does not equal itself"),
        ('{"problem": "1?', "not valid JSON"),
        ("[1]", "a JSON list, not an object"),
    ],
)
def test_a_bad_row_is_named_or_skipped_and_counted(
    tmp_path: Path, row: object, message: str
) -> None:
    path = write(tmp_path / "t.jsonl", {"problem": "1?", "answer": "1"}, row)
    with pytest.raises(ValueError, match=rf"t\.jsonl, row 2: .*{message}"):
        load_task(str(path))
    task = load_task(str(path), bad_rows="skip")
    assert len(task.problems) == 1 and "1 bad rows skipped" in task.source


def test_a_bad_gold_answer_is_named_by_its_line_whatever_was_skipped_before_it(
    tmp_path: Path,
) -> None:
    rows = [{"problem": "1?", "answer": answer} for answer in ("", "1", "?", "2")]
    path = write(tmp_path / "t.jsonl", rows[1], "", *rows[1:])
    with pytest.raises(ValueError, match=r"t\.jsonl, row 4: the gold answer"):
        load_task(str(path))
    path = write(tmp_path / "t.jsonl", *rows)
    task = load_task(str(path), bad_rows="skip")
    assert [problem.gold for problem in task.problems] == ["1", "2"]
    assert "2 bad rows skipped" in task.source


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("nope", ValueError, "is unknown. A task is"),
        ("nope.parquet", FileNotFoundError, "does not exist"),
        ("t.csv=", ValueError, "unknown"),
        ("t=x.csv", FileNotFoundError, "does not exist"),
        ("python:no_such_module", ImportError, "no_such_module"),
        ("nope.py", FileNotFoundError, "does not exist"),
        ("reasoning_gym:", ValueError, "unknown"),
    ],
)
def test_a_name_that_is_no_task_is_an_error(name: str, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        load_task(name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.json", '[{"problem": "1?", "answer": "1"}]'),
        ("t.JSONL", '{"problem": "1?", "answer": "1"}\n'),
        ("t.csv", "problem,answer\n1?,1\n"),
    ],
)
def test_a_task_reads_the_files_that_training_reads(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    task = load_task(str(tmp_path / name))
    assert (task.name, [problem.gold for problem in task.problems]) == ("t", ["1"])
    assert load_prompts(tmp_path / name)["answer"] == ["1"]


def test_files_that_are_no_data_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a parquet file"):
        load_task(str(write(tmp_path / "t.parquet", "garbage")))
    with pytest.raises(ValueError, match="no usable row"):
        load_task(str(write(tmp_path / "t.jsonl")))
    with pytest.raises(ValueError, match="no usable row"):
        load_task(f"t={write(tmp_path / 't.csv', 'a,b')}")


def test_a_benchmark_must_have_its_number_of_problems(tmp_path: Path) -> None:
    path = write(tmp_path / "t.jsonl", {"problem": "1?", "answer": "1"})
    with pytest.raises(ValueError, match=r"aime24 has 30 problems, .* has 1"):
        load_task(f"aime24={path}")


def test_a_limit_keeps_the_first_problems() -> None:
    whole = load_task("arithmetic")
    assert load_task("arithmetic", limit=7).problems == whole.problems[:7]
    with pytest.raises(ValueError, match="got 0"):
        whole.first(0)


def test_a_template_is_versioned_and_hashed() -> None:
    assert Template("{problem} a").hash != Template("{problem} b").hash
    assert Template("{problem}").hash != Template("{problem}", chat=False).hash
    assert Template("{problem}", chat=False).render("{x} {problem}") == "{x} {problem}"
    with pytest.raises(ValueError, match=r"holds \{problem\}"):
        Template("nothing")


def test_a_task_without_problems_or_with_doubled_ids_is_refused() -> None:
    problem = Problem("0", "x", "1")
    for problems, message in (((), "no problems"), ((problem, problem), "two problems")):
        with pytest.raises(ValueError, match=message):
            Task("t", problems, Template("{problem}"), Grade.of, "g", "s")


def test_splits_of_arithmetic_are_disjoint_and_a_repeated_task_is_not() -> None:
    train, test = arithmetic.load("train", 300), arithmetic.load("test", 300, seed=5)
    assert shared_prompts(train, test) == []
    assert len(shared_prompts(test, arithmetic.load("test", 300, seed=5))) == 300


@pytest.mark.parametrize(
    ("text", "gold", "status"),
    [
        ("12 + 3 = 15. The answer is 15.", "15", "correct"),
        ("The answer is 4. No: The answer is 15.", "15", "correct"),
        ("The answer is 15. No: The answer is 4.", "15", "wrong"),
        ("The answer is -15.", "15", "wrong"),
        ("15", "15", "no_box"),
        (" ", "15", "empty"),
        (f"The answer is {'9' * 5000}.", "15", "no_box"),
    ],
)
def test_arithmetic_is_graded_by_its_last_stated_answer(text: str, gold: str, status: str) -> None:
    assert arithmetic.grade(text, gold).status == status


class TestReasoningGym:
    def test_splits_and_seeds_share_no_problem_and_repeat_none(self) -> None:
        tasks = [
            reasoning.load("chain_sum", s, 60, seed) for s in ("train", "test") for seed in (0, 1)
        ]
        for i, one in enumerate(tasks):
            assert len({str(p.prompt) for p in one.problems}) == 60
            assert all(shared_prompts(one, other) == [] for other in tasks[i + 1 :])
        again = reasoning.load("chain_sum", "test", 60, 0)
        assert again.problems == tasks[2].problems

    def test_only_a_full_score_is_correct(self) -> None:
        task = load_task("reasoning_gym:chain_sum", limit=5)
        problem = task.problems[0]
        right = problem.gold
        for text, status in (
            (f"<answer>\n {right} \n</answer>", "correct"),
            (f"<answer>0</answer> no, <answer>{right}</answer>", "correct"),
            (f"<answer>{right}</answer> no, <answer>0</answer>", "wrong"),
            # Scores above 0 for holding the answer somewhere.
            (f"<answer>it is {right}</answer>", "wrong"),
            (f"<answer>{right}</answer> <answer>{right}", "unterminated"),
            (f"<think><answer>{right}</answer></think>", "no_box"),
            (right, "no_box"),
            ("", "empty"),
        ):
            assert task.verdict(text, problem).status == status, text

    def test_a_task_with_few_problems_says_how_many(self) -> None:
        with pytest.raises(ValueError, match="different problems"):
            reasoning.load("coin_flip", count=300)

    def test_bad_requests(self) -> None:
        for arguments, message in (
            (("no_such_task",), "no task 'no_such_task'"),
            (("chain_sum", "dev"), "split"),
            (("chain_sum", "test", 0), "count"),
            (("chain_sum", "test", 5, 1000), "seed"),
        ):
            with pytest.raises(ValueError, match=message):
                reasoning.load(*arguments)

    def test_the_package_missing_is_one_sentence(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "reasoning_gym", None)
        with pytest.raises(ImportError, match=r"pip install 'oprd\[tasks\]'"):
            load_task("reasoning_gym:chain_sum")


OWN = """
from oprd.evaluation.grading import Grade
def prompts():
    return [{"prompt": "Say yes.", "answer": "yes"}]
def grade(text, gold):
    return Grade.of(text == gold, text)
respond = str
"""


def test_a_python_file_is_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_task.py").write_text(OWN)
    task = load_task(str(tmp_path / "own_task.py"))
    assert task.name == "own_task" and task.problems[0].prompt == "Say yes."
    assert task.verdict("yes", task.problems[0]).correct
    assert self_test(task).passed
    monkeypatch.syspath_prepend(tmp_path)
    assert load_task("python:own_task").problems == task.problems
    # A shell leaves ~ as it is after a comma.
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_task("~/own_task.py").name == "own_task"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def grade", "def score", "must define"),
        ("def prompts", "def questions", "must define"),
        ('"answer": "yes"', '"gold": "yes"', "row 0: a row has"),
        ('"Say yes."', '""', "row 0: prompt or answer is empty"),
        ('return [{"prompt": "Say yes.", "answer": "yes"}]', "return []", "no problems"),
    ],
)
def test_a_python_file_that_is_no_task(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "bad_task.py").write_text(OWN.replace(old, new))
    with pytest.raises(ValueError, match=message):
        load_task(str(tmp_path / "bad_task.py"))


def test_a_grader_that_accepts_everything_fails_the_self_test() -> None:
    task = arithmetic.load(count=3)
    always = Task("t", task.problems, task.template, lambda *_: Grade(True, "correct"), "g", "s")
    assert len(self_test(always).accepted) == 3
    never = Task("t", task.problems, task.template, lambda *_: Grade(False, "wrong"), "g", "s")
    assert len(self_test(never).refused) == 3
    assert self_test(task).passed


def test_a_changed_answer_is_another() -> None:
    assert (changed("5"), changed(r"\text{East}")) == ("6", r"\text{not east}")
    assert changed(r"\frac{1}{2}") == r"\frac{1}{2}+1"
    assert changed("9" * 40) == f"1{'0' * 40}"


@pytest.mark.skipif(DATA is None, reason="OPRD_TEST_DATA names no folder with the benchmarks")
@pytest.mark.parametrize(
    ("name", "count"),
    [("aime24", 30), ("aime25", 30), ("aimo", 83), ("amc23", 40), ("math500", 500)],
)
def test_a_benchmark_loads_whole_and_grades_its_own_answers(name: str, count: int) -> None:
    task = load_task(f"{name}={DATA}/{name}.parquet")
    assert len(task.problems) == count
    assert self_test(task).passed
    rows = pq.read_table(f"{DATA}/{name}.parquet").to_pylist()
    rendered = [problem.prompt[-1]["content"].split() for problem in task.problems]
    if name != "amc23":  # whose copy comes without the instruction
        assert rendered == [row["prompt"][-1]["content"].split() for row in rows]


def test_mathematics_needs_math_verify_before_the_first_response(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    with pytest.raises(ImportError, match=r"task 'own' needs math_verify.*oprd\[math\]"):
        mathematics.make_task("own", [], "here")
