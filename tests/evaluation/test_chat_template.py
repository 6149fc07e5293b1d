"""What the chat template is given: in Python, from the command line, and from a run's record."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.records import RecordFile, read_records, rewrite_records
from oprd.evaluation.regrade import regrade
from oprd.evaluation.result import Evaluation
from oprd.evaluation.table import rows_and_notes
from oprd.evaluation.tasks.load import load_task
from tests import tiny
from tests.evaluation.samples import chat_tokenizer, header, record
from tests.training import runs

# Two options, so that it is not one name that arrives.
TEMPLATE = (
    "{{ 'think' if enable_thinking is not defined or enable_thinking else 'answer' }} {{ effort }}:"
)
OPTIONS = {"enable_thinking": False, "effort": "low"}
SETTINGS = {"samples": 1, "max_new_tokens": 4, "progress": False, "chat_template_kwargs": OPTIONS}


@pytest.fixture
def task_file(tmp_path: Path) -> str:
    rows = [{"problem": f"{n}+1?", "answer": str(n + 1)} for n in range(3)]
    path = tmp_path / "sums.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


@pytest.fixture
def models(tmp_path: Path) -> list[str]:
    folders = []
    for seed in (0, 1):
        folder = tmp_path / f"model-{seed}"
        tiny.model(seed=seed).save_pretrained(folder)
        chat_tokenizer(TEMPLATE).save_pretrained(folder)
        folders.append(str(folder))
    return folders


def command(*arguments: str, code: int = 0) -> str:
    drawing = ("--samples", "1", "--max_new_tokens", "4", "--limit", "2")
    found = CliRunner().invoke(app, ["eval", *arguments, *drawing])
    assert found.exit_code == code, found.output
    return " ".join(found.output.split())


def headers(folder: Path) -> dict[str, dict]:
    results = json.loads((folder / "results.json").read_text())
    return {found["model"]: found for found in results["evaluations"]}


def check_asked_with_options(header: dict) -> None:
    assert header["prompt"].endswith("answer low:")
    assert header["chat_template_kwargs"] == OPTIONS


def test_python_evaluates_with_options(task_file: str) -> None:
    task = load_task(task_file)
    found = evaluate_model(tiny.model(), chat_tokenizer(TEMPLATE), task, **SETTINGS)
    check_asked_with_options(found.header)
    plain = evaluate_model(
        tiny.model(), chat_tokenizer(TEMPLATE), task, **{**SETTINGS, "chat_template_kwargs": None}
    )
    assert plain.header["prompt"].endswith("think :")
    assert plain.header["chat_template_kwargs"] == {}
    rows, _ = rows_and_notes([plain, found])
    assert ["chat_template_kwargs", "–", '{"enable_thinking": false, "effort": "low"}'] in rows


def test_the_command_line_evaluates_with_options(
    models: list[str], task_file: str, tmp_path: Path
) -> None:
    arguments = ["--model", models[0], "--tasks", task_file, "--output_dir", str(tmp_path / "out")]
    command(*arguments, "--chat_template_kwargs", json.dumps(OPTIONS))
    check_asked_with_options(headers(tmp_path / "out")[models[0]])
    # Samples drawn with options are not taken for some drawn without, nor the other way round.
    assert "was written with chat_template_kwargs={'enable" in command(*arguments, code=1)
    message = "chat_template_kwargs must be a JSON object such as"
    assert message in command(*arguments, "--chat_template_kwargs", "yes", code=1)


def test_a_run_is_evaluated_with_its_options(
    models: list[str], task_file: str, tmp_path: Path
) -> None:
    run, (student, teacher) = tmp_path / "run", models
    settings = {"eval_tasks": task_file, "eval_samples": 1, "eval_max_new_tokens": 4}
    trainer = runs.trainer(
        run, student, teacher, tokenizer=chat_tokenizer(TEMPLATE), **settings,
        chat_template_kwargs=OPTIONS,
    )  # fmt: skip
    trainer.train()
    trainer.save_model()
    for step in (0, 1):
        drawn, _ = read_records(run / "evaluations" / f"step-{step:06d}" / "sums.jsonl")
        check_asked_with_options(drawn)
    command("--run", str(run), "--tasks", task_file)
    found = headers(run / "evaluations")
    assert list(found) == ["teacher", "student before", "student after"]
    for one in found.values():
        check_asked_with_options(one)
    others = ["--output_dir", str(tmp_path / "others"), "--chat_template_kwargs", '{"effort": "x"}']
    command("--run", str(run), "--tasks", task_file, *others)
    assert all(one["prompt"].endswith("think x:") for one in headers(tmp_path / "others").values())


def test_a_file_that_does_not_say_was_drawn_without_options(tmp_path: Path) -> None:
    path = tmp_path / "earlier.jsonl"
    rewrite_records(path, header(), [record()])
    with RecordFile(path, header(chat_template_kwargs={})) as file:
        assert file.records == [record()]
    with pytest.raises(ValueError, match=r"with chat_template_kwargs=\{\}, this run has \{'a': 1"):
        RecordFile(path, header(chat_template_kwargs={"a": 1}))


def test_grading_again_keeps_what_the_template_was_given(tmp_path: Path, task_file: str) -> None:
    path, task = tmp_path / "a.jsonl", load_task(task_file)
    evaluate_model(tiny.model(), chat_tokenizer(TEMPLATE), task, output=path, **SETTINGS)
    regrade(path, task)
    check_asked_with_options(Evaluation.from_file(path).header)
