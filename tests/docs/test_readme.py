"""What the README shows is run, with tiny models in the place of its own."""

import inspect
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from oprd.cli import bridge
from oprd.cli.main import app
from oprd.models.blocks import drop_blocks
from tests.docs.test_recipes import OVERRIDES, places  # noqa: F401 # a fixture
from tests.evaluation.samples import chat_tokenizer

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def commands(name: str) -> list[list[str]]:
    whole = [block.replace("\\\n", " ") for block in blocks("")]
    lines = (line.split("#")[0] for block in whole for line in block.splitlines())
    return [shlex.split(line) for line in lines if line.startswith(name)]


def test_the_python_example_trains_on_messages_and_shows_the_first(
    places,  # noqa: F811 # the fixture
    monkeypatch,
    capsys,
    caplog,
):
    (example,) = blocks("python")
    monkeypatch.chdir(places)
    for name in ("student", "teacher"):
        chat_tokenizer("assistant: ").save_pretrained(places / name)
    for shown, tiny in (
        ("path/to/student", str(places / "student")),
        ("path/to/teacher", str(places / "teacher")),
        ("max_steps=200", "max_steps=2, use_cpu=True, report_to=[]"),
        ("max_completion_length=512", "max_completion_length=8"),
    ):
        assert shown in example
        example = example.replace(shown, tiny)
    exec(compile(example, "README.md", "exec"), {})
    assert (places / "runs/mine/metrics.jsonl").exists()
    shown = capsys.readouterr().out
    read = r"First prompt as the student reads it, 34 tokens: user: What is .*\?\\nassistant: \n"
    assert re.match(read, shown)
    assert "plain text" not in caplog.text


def test_every_command_is_known_to_these_tests():
    assert [command[1] for command in commands("oprd")] == [
        "eval",
        "doctor",
        "inspect",
        "train",
        "recipes",
        "train",
        "eval",
        "watch",
        "report",
        "export",
        "bridge",
        "recipes",
        "train",
    ]
    assert {command[1] for command in commands("make")} == {"demo", "test"}
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{command[1]}:" in makefile for command in commands("make"))


def test_the_train_and_eval_commands_run(places, monkeypatch):  # noqa: F811 # the fixture
    train = commands("oprd train")[1][1:]
    evaluations = [command[1:] for command in commands("oprd eval")]
    assert len(evaluations) == 2
    monkeypatch.chdir(places)
    assert CliRunner().invoke(app, commands("oprd recipes")[0][1:]).exit_code == 0
    overrides = {
        **OVERRIDES,
        "model_name_or_path": "student",
        "teacher_model_name_or_path": "teacher",
        "dataset_name": "prompts.jsonl",
        "output_dir": "run",
    }
    extra = [part for name, value in overrides.items() for part in (f"--{name}", value)]
    trained = CliRunner().invoke(app, [*train, *extra])
    assert trained.exit_code == 0, trained.output
    for evaluate in evaluations:
        evaluate[evaluate.index("--run") + 1] = "run"
        shown = CliRunner().invoke(app, [*evaluate, "--limit", "3", "--max_new_tokens", "8"])
        assert shown.exit_code == 0, shown.output
        assert "student after − student before" in shown.output
    for name, further in (("watch", ["--once"]), ("report", []), ("export", [])):
        (looked,) = commands(f"oprd {name}")
        asked = ["run" if part == "runs/mine" else part for part in looked[1:]]
        shown = CliRunner().invoke(app, [*asked, *further])
        assert shown.exit_code == 0, shown.output
    assert (places / "exported" / "config.json").is_file()


def test_an_inspection_leads_to_a_run(places, monkeypatch):  # noqa: F811 # the fixture
    (inspection,) = commands("oprd inspect")
    train = commands("oprd train")[0]
    for role in ("student", "teacher"):
        inspection[inspection.index(f"--{role}") + 1] = role
    monkeypatch.chdir(places)
    short = ["--max_prompts", "8", "--max_completion_length", "8"]
    inspected = CliRunner().invoke(app, [*inspection[1:], *short])
    assert inspected.exit_code == 0, inspected.output
    steps = ("--max_steps", "1", "--per_device_train_batch_size", "2", "--use_cpu", "true")
    trained = CliRunner().invoke(app, [*train[1:], *steps])
    assert trained.exit_code == 0, trained.output


def test_the_run_through_a_bridge_is_of_what_the_bridge_was_fitted_on():
    (fit,) = commands("oprd bridge")
    train = commands("oprd train")[2]
    for of_fit, of_run in (
        ("--student", "--model_name_or_path"),
        ("--teacher", "--teacher_model_name_or_path"),
        ("--prompts", "--dataset_name"),
        ("--positions", "--positions"),
    ):
        assert train[train.index(of_run) + 1] == fit[fit.index(of_fit) + 1]
    limit = inspect.signature(bridge.fit).parameters["max_completion_length"].default
    assert train[train.index("--max_completion_length") + 1] == str(limit)


def test_the_bridge_commands_run(places, monkeypatch):  # noqa: F811 # the fixture
    (fit,) = commands("oprd bridge")
    train = commands("oprd train")[2]
    fit[fit.index("--student") + 1] = "student"
    fit[fit.index("--teacher") + 1] = "wider"
    output = fit[fit.index("--output_dir") + 1]
    assert train[train.index("--bridge") + 1] == f"{output}/bridge.safetensors"
    monkeypatch.chdir(places)
    assert CliRunner().invoke(app, commands("oprd recipes")[1][1:]).exit_code == 0
    short = ["--max_prompts", "24", "--max_completion_length", "8"]
    fitted = CliRunner().invoke(app, [*fit[1:], *short])
    assert fitted.exit_code == 0, fitted.output
    overrides = {
        **OVERRIDES,
        "model_name_or_path": "student",
        "teacher_model_name_or_path": "wider",
        "dataset_name": "prompts.jsonl",
        "output_dir": "bridged",
    }
    extra = [part for name, value in overrides.items() for part in (f"--{name}", value)]
    trained = CliRunner().invoke(app, [*train[1:], *extra])
    assert trained.exit_code == 0, trained.output


def test_the_settings_for_a_wider_teacher_train(places, monkeypatch):  # noqa: F811 # the fixture
    text = blocks("yaml")[0]
    monkeypatch.chdir(places)
    models = {"model_name_or_path": "student", "teacher_model_name_or_path": "wider"}
    whole = {**OVERRIDES, **models, "dataset_name": "prompts.jsonl", "output_dir": "beside"}
    own = {**whole, **yaml.safe_load(text), "bridge_prompts": 24, "bridge_rank": 4}
    Path("beside.yaml").write_text(yaml.safe_dump(own))
    trained = CliRunner().invoke(app, ["train", "--config", "beside.yaml"])
    assert trained.exit_code == 0, trained.output
    record = json.loads(Path("beside/run.json").read_text())
    settings = record["settings"]
    assert (settings["representation_weight"], settings["scale"]) == (10.0, "unit")
    assert record["bridges"]["fit"]["rank"] == 4


def uses() -> dict[str, str]:
    """Of the table of teachers, the settings of each use, as YAML."""
    table = README.split("| who teaches | settings |\n|---|---|\n")[1].split("\n\n")[0]
    rows = [row.strip("| ").split(" | ") for row in table.splitlines()]
    return {use: "\n".join(re.findall(r"`([^`]+)`", cell)) for use, cell in rows}


@pytest.mark.parametrize("use", uses())
def test_every_use_of_a_teacher_trains(use, places, monkeypatch):  # noqa: F811 # the fixture
    monkeypatch.chdir(places)
    rows = [
        {"prompt": f"what is {n}?", "solution": f"It is {n}.", "teacher": ("sums", "words")[n % 2]}
        for n in range(32)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = AutoModelForCausalLM.from_pretrained("teacher")
    drop_blocks(whole, (2,)).save_pretrained("pruned")
    AutoTokenizer.from_pretrained("teacher").save_pretrained("pruned")
    plain = {**OVERRIDES, "model_name_or_path": "student", "dataset_name": "rows.jsonl"}
    settings = {**plain, "output_dir": "taught", **yaml.safe_load(uses()[use])}
    Path("taught.yaml").write_text(yaml.safe_dump(settings))
    trained = CliRunner().invoke(app, ["train", "--config", "taught.yaml"])
    assert trained.exit_code == 0, trained.output
    assert Path("taught/model.safetensors").exists()
    shutil.rmtree("taught")


def test_the_uses_are_all_that_there_are():
    named = {name for settings in uses().values() for name in yaml.safe_load(settings)}
    known = {"teacher_template", "teacher_source", "teachers", "extrapolation", "layer_pairing"}
    assert known <= named


@pytest.mark.parametrize("target", re.findall(r"\]\(((?!http)[^)]+)\)", README))
def test_every_link_leads_somewhere(target):
    assert (ROOT / target).exists()
