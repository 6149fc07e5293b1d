import json
import sys
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.models.load import fingerprint, load_model
from tests import tiny
from tests.training import runs


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folders = []
    for seed in (0, 1):
        folder = tmp_path_factory.mktemp("model")
        tiny.model(seed=seed).save_pretrained(folder)
        tiny.tokenizer().save_pretrained(folder)
        folders.append(str(folder))
    return folders


def run(*arguments: str, code: int = 0) -> str:
    found = CliRunner().invoke(app, ["eval", *arguments])
    assert found.exit_code == code, found.output
    return found.output


def settings(models: list[str], output: Path) -> list[str]:
    return [
        *(part for model in models for part in ("--model", model)),
        *("--tasks", "arithmetic", "--samples", "2", "--limit", "3", "--max_new_tokens", "4"),
        *("--output_dir", str(output)),
    ]


def test_two_models_are_compared_and_a_second_run_draws_nothing(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed = run(*settings(models, tmp_path), "--self-test")
    assert "self-test of arithmetic: 3 gold answers" in printed
    assert "Avg@2" in printed and "0 won, 0 lost, 3 equal" in " ".join(printed.split())
    results = json.loads((tmp_path / "results.json").read_text())
    assert [e["obtained"] for e in results["evaluations"]] == [6, 6]
    assert "| Avg@2 |" in (tmp_path / "results.md").read_text()

    monkeypatch.setattr("oprd.models.generate.TransformersEngine._batch", None)
    run(*settings(models, tmp_path))
    assert json.loads((tmp_path / "results.json").read_text()) == results

    monkeypatch.setattr("oprd.models.load.open_engine", None)
    assert "0 verdicts changed" in run(*settings(models, tmp_path), "--regrade")
    assert json.loads((tmp_path / "results.json").read_text()) == results


def test_a_missing_model_is_found_out_before_the_first_is_evaluated(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oprd.models.load.open_engine", None)
    printed = run(*settings([models[0], "./no-model"], tmp_path), code=1)
    assert "model './no-model': there is no such file or folder" in printed


def test_a_missing_scipy_is_found_out_before_the_first_is_evaluated(
    models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oprd.models.load.open_engine", None)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert r"pip install 'oprd[report]'" in run(*settings(models, tmp_path), code=1)


@pytest.mark.parametrize("adapters", [False, True])
def test_a_run_is_its_teacher_and_its_student_before_and_after(
    models: list[str], tmp_path: Path, adapters: bool
) -> None:
    student, teacher = models
    run_folder = tmp_path / "run"
    lora = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    if adapters:
        teacher = str(tmp_path / "teacher")
        adapted = get_peft_model(tiny.model(), lora)
        adapted.peft_config["default"].base_model_name_or_path = student
        adapted.save_pretrained(teacher)
    trainer = runs.trainer(run_folder, student, teacher, peft_config=lora if adapters else None)
    trainer.train()
    trainer.save_model()
    one_base = json.loads((run_folder / "run.json").read_text())["one_base_serves_both"]
    assert one_base is adapters
    assert (run_folder / "adapter_config.json").exists() is adapters

    settings = ["--samples", "2", "--limit", "3", "--max_new_tokens", "4"]
    printed = " ".join(run("--run", str(run_folder), "--tasks", "additions", *settings).split())
    assert "student after − teacher" in printed and "student after − student before" in printed
    results = json.loads((run_folder / "evaluations" / "results.json").read_text())
    found = {evaluation["model"]: evaluation for evaluation in results["evaluations"]}
    assert list(found) == ["teacher", "student before", "student after"]
    assert [e["path"] for e in found.values()] == [teacher, student, str(run_folder)]
    assert found["student before"]["weights"] == fingerprint(tiny.model())
    assert found["student after"]["weights"] == fingerprint(load_model(str(run_folder))[0])
    assert len({evaluation["weights"] for evaluation in found.values()}) == 3
    assert {evaluation["dtype"] for evaluation in found.values()} == {"float32"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "./no-model", "--tasks", "arithmetic"], "'./no-model': there is no such"),
        (["--model", "x/y", "--tasks", "nope"], "task 'nope' is unknown"),
        (["--model", "x/y", "--tasks", "arithmetic", "--samples", "0"], "samples must be"),
        (["--model", "x/y", "--tasks", "arithmetic", "--engine", "trt"], "--engine must be"),
        (["--model", "x/y", "--tasks", "arithmetic", "--bad-rows", "keep"], "--bad_rows must"),
        (["--model", "x/y", "--tasks", "arithmetic,arithmetic"], "named twice"),
        (["--model", "x/y", "--tasks", "arithmetic", "--regrade"], "no samples to grade again"),
        (["--tasks", "arithmetic"], "which model? Give --model PATH, or --run FOLDER"),
        (["--model", "x/y", "--tasks", "additions, nope"], "task 'nope' is unknown"),
        (["--model", "x/y", "--tasks", ","], "which task? Give --tasks NAME"),
        (["--model", "x/y", "--run", ".", "--tasks", "arithmetic"], "'.' is no run folder"),
        (["--model", "x/y", "--tasks", "aime24=none.parquet"], "'none.parquet' does not exist"),
        (["--model", "x/y", "--tasks", "arithmetic", "--limit", "0"], "limit must be at least 1"),
        (["--model", "not a model", "--tasks", "arithmetic"], "model 'not a model' is no file or"),
        (["--model", "{broken}", "--tasks", "arithmetic"], "cannot be loaded: Error while deseri"),
        (["--model", "{model}", "--tasks", "additions", "--dtype", "int3"], "dtype must be one of"),
        (["--model", "{model}", "--tasks", "{broken}/syntax.py"], "cannot be imported: invalid"),
        (["--model", "{model}", "--tasks", "{broken}/import.py"], "No module named 'nothing_here'"),
    ],
)
def test_bad_arguments_are_one_sentence(
    arguments: list[str], message: str, models: list[str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text((Path(models[0]) / "config.json").read_text())
    (broken / "model.safetensors").write_text("x")
    tiny.tokenizer().save_pretrained(broken)
    (broken / "syntax.py").write_text("def (:")
    (broken / "import.py").write_text("import nothing_here")
    filled = [part.format(model=models[0], broken=broken) for part in arguments]
    printed = run(*filled, "--output_dir", str(tmp_path / "out"), code=1)
    assert message in printed
    *before, last = printed.splitlines()
    assert last.startswith("oprd: ")
    assert all("Loading weights" in line for line in before)


def test_a_folder_that_cannot_be_written_to_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    output = str(tmp_path / "file" / "x")
    printed = run("--model", "x/y", "--tasks", "additions", "--output_dir", output, code=1)
    assert printed.startswith(f"oprd: output_dir '{output}' cannot be written to")
