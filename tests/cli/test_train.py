import errno
import json
import os
import resource
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oprd.cli import train
from oprd.cli.main import app
from oprd.evaluation.records import read_records
from oprd.training import callbacks
from tests import tiny

SETTINGS = """
model_name_or_path: {folder}/student
teacher_model_name_or_path: {folder}/teacher
dataset_name: arithmetic
max_prompts: 8
output_dir: {folder}/out
max_steps: 2
per_device_train_batch_size: 2
gradient_accumulation_steps: 1
max_completion_length: 4
layers: last
save_steps: 1
report_to: none
dataloader_pin_memory: false
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Student, teacher and settings of a run of two steps."""
    path = tmp_path_factory.mktemp("run")
    for seed, name in enumerate(("student", "teacher")):
        tiny.model("llama", seed=seed).save_pretrained(path / name)
        tiny.tokenizer().save_pretrained(path / name)
    adapter = {"base_model_name_or_path": f"{path}/bse", "peft_type": "LORA"}
    (path / "adapter").mkdir()
    (path / "adapter" / "adapter_config.json").write_text(json.dumps(adapter))
    (path / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    messages = {"prompt": [{"role": "user", "content": "2 + 2?"}]}
    (path / "chat.jsonl").write_text(json.dumps(messages) + "\n")
    (path / "run.yaml").write_text(SETTINGS.format(folder=path))
    return path


def invoke(folder: Path, *arguments: str):
    return CliRunner().invoke(app, ["train", "--config", str(folder / "run.yaml"), *arguments])


def test_a_run_trains_saves_the_student_and_resumes(folder: Path):
    first = invoke(folder)
    assert first.exit_code == 0, first.output
    assert f"Trained 2 steps: student, run.json and metrics.jsonl in {folder}/out" in first.stdout
    assert (folder / "out" / "model.safetensors").stat().st_size > 0
    assert (folder / "out" / "tokenizer.json").exists()
    resumed = invoke(folder, "--max_steps", "3", "--resume_from_checkpoint", "auto")
    assert resumed.exit_code == 0, resumed.output
    assert f"Resuming from {folder}/out/checkpoint-2." in resumed.stdout
    assert "Trained 3 steps" in resumed.stdout
    state = json.loads((folder / "out" / "checkpoint-3" / "trainer_state.json").read_text())
    assert state["global_step"] == 3


def test_a_run_that_starts_anew_in_a_used_folder_says_what_is_there(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    arguments = ["--output_dir", str(tmp_path), "--save_strategy", "no"]
    for warned in (False, True):
        callbacks.logger.warning_once.cache_clear()
        caplog.clear()
        result = invoke(folder, *arguments)
        assert result.exit_code == 0, result.output
        warning = f"{str(tmp_path)!r} holds an earlier run (run.json, metrics.jsonl, model."
        assert (warning in caplog.text) == warned


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Let something happen as a step begins."""
    steps = train.OPRDTrainer.training_step

    def stepping(self, *args, **kwargs):
        if self.state.global_step == step:
            act()
        return steps(self, *args, **kwargs)

    monkeypatch.setattr(train.OPRDTrainer, "training_step", stepping)


@pytest.fixture
def terminal():
    """Ctrl-C as in a terminal, whatever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


IN_THE_FILE = ["overwrite: true"]


@pytest.mark.parametrize(
    "given",
    [
        [],
        ["--resume_from_checkpoint", "false"],
        ["--resume_from_checkpoint=auto"],
        ["--overwrite", "--logging_steps", "1"],
        ["--overwrite", "true"],
        IN_THE_FILE,
    ],
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.usefixtures("terminal")
def test_a_signal_prints_one_line_with_the_command_that_goes_on(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: list[str],
    number: signal.Signals,
    code: int,
):
    out = tmp_path / "a folder"
    if given == IN_THE_FILE:
        shutil.copytree(folder, tmp_path / "own", ignore=shutil.ignore_patterns("out"))
        folder = tmp_path / "own"
        settings = folder / "run.yaml"
        settings.write_text(SETTINGS.format(folder=folder) + "overwrite: true\n")
        given = []
    with monkeypatch.context() as patch:
        at_step(patch, 0, lambda: os.kill(os.getpid(), number))
        stopped = invoke(folder, "--output_dir", str(out), *given)
    assert stopped.exit_code == code
    where = f"{number.name}: ended after step 1, saved in {out}/checkpoint-1. Go on with: "
    words = shlex.split(stopped.stderr.partition(where)[2].splitlines()[0])
    assert words[:2] == ["oprd", "train"] and words[-2:] == ["--resume_from_checkpoint", "auto"]
    resumed = CliRunner().invoke(app, words[1:])
    assert resumed.exit_code == 0, resumed.output
    assert f"Resuming from {out}/checkpoint-1." in resumed.stdout


def test_the_command_that_goes_on_shows_no_secret():
    said = train._way_on(["--hub_token", "hf_x", "--hub_token=hf_y", "--bf16"], overwrite=False)
    hidden = shlex.quote(train.HIDDEN)
    assert said.startswith(f"oprd train --hub_token {hidden} ") and "--bf16" in said
    assert "hf_x" not in said and "hf_y" not in said


def limited(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    """Let files grow to 1,000 bytes while a student is saved."""
    save = train.OPRDTrainer._save

    def saving(self, *args, **kwargs):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            save(self, *args, **kwargs)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(train.OPRDTrainer, "_save", saving)


def full(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    def failing(*args: object):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(callbacks, "append_metrics", failing)


def removed(monkeypatch: pytest.MonkeyPatch, out: Path) -> None:
    at_step(monkeypatch, 1, lambda: shutil.rmtree(out))


@pytest.mark.parametrize(
    ("happens", "problem"),
    [
        (limited, "File too large"),
        (full, "No space left on device"),
        (removed, "No such file or directory"),
    ],
)
def test_what_the_machine_refuses_to_write_is_one_sentence_with_the_folder_and_the_way_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, happens, problem: str
):
    out = tmp_path / "out"
    happens(monkeypatch, out)
    result = invoke(folder, "--output_dir", str(out), "--logging_steps", "1")
    assert result.exit_code == 1
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("oprd: ")]
    assert f"{str(out)!r} could not be written to (" in line and problem in line
    assert "`ulimit -f`" in line and line.endswith("--resume_from_checkpoint auto.")
    assert "Traceback" not in result.stderr


def test_a_run_without_room_for_its_student_ends_before_its_first_step(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("oprd.runs.space.free_bytes", lambda folder: 1000)
    out = tmp_path / "out"
    result = invoke(folder, "--output_dir", str(out), "--save_strategy", "no")
    assert result.exit_code == 1 and "bytes, and 1,000 are free" in result.stderr
    assert "Traceback" not in result.stderr and not (out / "metrics.jsonl").exists()


def test_a_missing_file_that_is_no_part_of_the_run_keeps_its_traceback(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at_step(monkeypatch, 0, lambda: open(tmp_path / "elsewhere" / "file"))  # noqa: SIM115
    result = invoke(folder, "--output_dir", str(tmp_path / "out"))
    assert isinstance(result.exception, FileNotFoundError)


def test_the_first_prompt_is_shown_as_the_student_reads_it(folder: Path, tmp_path: Path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"prompt": "\x1b[31m[red]?\r\n"}) + "\n")
    result = invoke(
        folder, "--output_dir", str(tmp_path), "--dataset_name", str(prompts), "--max_prompts=1",
        "--per_device_train_batch_size=1", "--max_steps=1",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    shown = r"First prompt as the student reads it, 13 tokens: \x1b[31m[red]?\r\n"
    assert f"{shown}\n" in result.stdout
    assert "Its response, " in result.stdout and "between ⟦ and ⟧ are supervised: " in result.stdout
    # Progress bars move the cursor; the prompt does not set a colour.
    assert "\x1b[31m" not in result.stdout


def test_bfloat16_on_a_processor_is_said_and_float16_is_refused(folder: Path, tmp_path: Path):
    arguments = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--max_steps", "1"]
    result = invoke(folder, *arguments, "--bf16", "true")
    assert result.exit_code == 0, result.output
    assert "No GPU: training in bfloat16 on " in result.stdout
    assert "Memory: models " in result.stdout and "GiB are free." in result.stdout
    result = invoke(folder, *arguments, "--fp16", "true")
    assert result.exit_code == 1
    assert result.stderr.startswith("oprd: fp16=True has no effect without an accelerator")


def test_weights_that_are_asked_for_in_bfloat16_are_warned_of(folder: Path, tmp_path: Path, caplog):
    arguments = ["--output_dir", str(tmp_path), "--use_cpu", "true", "--max_steps", "1"]
    result = invoke(folder, *arguments, "--dtype", "bfloat16")
    assert result.exit_code == 0, result.output
    assert sum("Weights of the student train in bfloat16" in text for text in caplog.messages) == 1


def test_a_run_can_be_evaluated_on_tasks_while_it_trains(folder: Path, tmp_path: Path):
    (tmp_path / "run.yaml").write_text(
        SETTINGS.format(folder=folder)
        + "eval_tasks: [additions, arithmetic]\neval_limit: 2\neval_samples: 1\n"
        + "keep_best: arithmetic/avg@1\n"
    )
    result = invoke(tmp_path, "--output_dir", str(tmp_path / "out"))
    assert result.exit_code == 0, result.output
    best = f"{tmp_path}/out/best"
    assert f"Best arithmetic/avg@1: 0.0% at step 0, kept in {best}" in result.stdout
    assert "As the highest of several evaluations it is too high by chance" in result.stdout
    # What it offers instead is a command that runs as it stands, with samples of its own.
    command = shlex.split(
        result.stdout.partition("a fresh one of this student: ")[2].split("\n")[0]
    )
    assert command[:4] == ["oprd", "eval", "--model", best]
    fresh = CliRunner().invoke(app, [*command[1:], "--output_dir", str(tmp_path / "fresh")])
    assert fresh.exit_code == 0, fresh.output
    drawn = json.loads((tmp_path / "fresh" / "results.json").read_text())["evaluations"]
    kept, _ = read_records(tmp_path / "out" / "evaluations" / "step-000000" / "arithmetic.jsonl")
    assert [found["task"] for found in drawn] == ["additions", "arithmetic"]
    for key in ("samples", "temperature", "top_p", "max_new_tokens"):
        assert drawn[1]["sampling"][key] == kept["sampling"][key]
    assert drawn[1]["sampling"]["seed"] != kept["sampling"]["seed"]
    assert drawn[1]["problems_hash"] == kept["problems_hash"]
    assert (tmp_path / "out" / "evaluations" / "step-000002" / "additions.jsonl").is_file()


def test_an_output_loss_is_chosen_by_flags(folder: Path):
    chosen = {
        "output_loss": "topk",
        "representation_weight": "0",
        "output_loss_kwargs": '{"k": 4, "renormalize": false}',
        "diagnostics_steps": "1",
        "output_dir": str(folder / "opd"),
    }
    result = invoke(folder, *(part for k, v in chosen.items() for part in (f"--{k}", v)))
    assert result.exit_code == 0, result.output
    lines = (folder / "opd" / "metrics.jsonl").read_text().splitlines()
    assert "diagnostics/top16_overlap" in json.loads(lines[0])
    settings = json.loads((folder / "opd" / "run.json").read_text())["settings"]
    assert settings["output_loss_kwargs"] == {"k": 4, "renormalize": False}


@pytest.mark.parametrize("pairing", ["similarity", "from_end", "1:2,3:1"])
def test_layers_are_paired_by_a_flag(folder: Path, pairing: str):
    out = folder / f"pairing-{pairing[:4]}"
    result = invoke(folder, "--layers", "all", "--layer_pairing", pairing, "--output_dir", str(out))
    assert result.exit_code == 0, result.output
    record = json.loads((out / "run.json").read_text())
    shown = "Layer pairs, student:teacher (CKA): 1:" in result.stdout
    assert shown == (pairing == "similarity") == ("layer_similarity" in record)
    if pairing == "1:2,3:1":
        assert record["layer_pairs"] == [[1, 2], [3, 1]]


def test_a_resumed_run_shows_the_pairs_it_began_with(folder: Path):
    arguments = ("--layer_pairing", "similarity", "--output_dir", str(folder / "similar"))
    first = invoke(folder, *arguments)
    resumed = invoke(folder, *arguments, "--max_steps", "3", "--resume_from_checkpoint", "auto")
    assert resumed.exit_code == 0, resumed.output
    lines = [
        [line for line in run.stdout.splitlines() if line.startswith("Layer pairs")]
        for run in (first, resumed)
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 1
    assert "similarity " not in resumed.stdout


def test_a_setting_of_an_earlier_version_is_refused_with_its_new_name(folder: Path):
    result = invoke(folder, "--loss_top_k", "4")
    assert result.exit_code == 1
    assert "--loss_top_k has become 'k' of output_loss_kwargs" in result.stderr


def test_a_constant_prefix_is_chosen_by_a_flag(folder: Path):
    result = invoke(folder, "--no_prefix_gradients", "--output_dir", str(folder / "constant"))
    assert result.exit_code == 0, result.output
    settings = json.loads((folder / "constant" / "run.json").read_text())["settings"]
    assert settings["prefix_gradients"] is False


@pytest.fixture
def no_models(monkeypatch: pytest.MonkeyPatch):
    def loaded(*args: object, **kwargs: object):
        raise AssertionError("models were loaded")

    monkeypatch.setattr(train, "OPRDTrainer", loaded)


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--learning_rate", "nan"], "learning_rate must be above 0"),
        (["--learning_rte", "1"], "unknown field '--learning_rte': did you mean --learning_rate?"),
        (["--output_dir", "{folder}/run.yaml"], "run.yaml' cannot be written to"),
        (["--output_dir", "a" * 256], "has a part of 256 bytes"),
        (["--output_dir", "a\0b"], "holds a NUL character"),
        (["--resume_from_checkpoint", "{folder}/none"], "there is no such folder"),
        (["--dataset_name", "{folder}/none.jsonl"], "there is no such file or folder"),
        (["--dataset_name", "../no"], "dataset '../no': there is no such file or folder"),
        (["--dataset_name", "{folder}/run.yaml"], "must end in one of .parquet"),
        (["--model_name_or_path", "{folder}/none"], "student '{folder}/none': there is no such"),
        (["--teacher_model_name_or_path", "./none"], "teacher './none': there is no such"),
        (["--max_prompts", "0"], "max_prompts must be at least 1"),
        (["--model_name_or_path", "{folder}/studnet"], "did you mean '{folder}/student'?"),
        (["--teacher_model_name_or_path", "{folder}/adapter"], "teacher's base '{folder}/bse'"),
        (["--dataset_name", "{folder}/chat.jsonl"], "no chat template, as is usual for a base"),
        (["--torch_compile", "true"], "torch_compile=True has no effect here: it would compile"),
        (["--torch_compile_mode", "default"], "torch_compile_mode=default has no effect here"),
        (["--label_smoothing_factor", "0.1"], "label_smoothing_factor=0.1 has no effect here"),
        (["--report_to", "trackoi"], "got 'trackoi': did you mean 'trackio'?"),
        (["--optim", "adamw_tor"], "argument --optim: invalid choice: 'adamw_tor' (choose from"),
        (["--layer_pairing", "similar"], "did you mean similarity?), or pairs"),
        (["--layer_pairing", "1:1,1:2"], "names student layer 1 more than once"),
    ],
)
def test_what_cannot_work_is_one_sentence_before_models_are_loaded(
    folder: Path, tmp_path: Path, arguments: list[str], problem: str
):
    given = [argument.format(folder=folder) for argument in arguments]
    result = invoke(folder, "--output_dir", str(tmp_path), *given)
    assert result.exit_code == 1
    assert result.stderr.startswith("oprd: ") and result.stderr.count("\n") == 1
    assert problem.format(folder=folder) in result.stderr


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    "field", ["model_name_or_path", "teacher_model_name_or_path", "dataset_name"]
)
def test_what_is_missing_is_named(folder: Path, tmp_path: Path, field: str):
    lines = (folder / "run.yaml").read_text().splitlines()
    (tmp_path / "run.yaml").write_text("\n".join(x for x in lines if not x.startswith(field)))
    result = invoke(tmp_path, "--output_dir", str(tmp_path / "out"))
    assert result.exit_code == 1
    assert f"set --{field}, or {field} in the config file" in result.stderr


def test_trust_in_the_students_code_is_not_trust_in_the_teachers(folder: Path, monkeypatch):
    built: list[dict] = []
    monkeypatch.setattr(train, "OPRDTrainer", lambda **options: built.append(options))
    options = '{"trust_remote_code": true}'
    command = ["--config", str(folder / "run.yaml"), "--trust_remote_code"]
    for extra in ([], ["--teacher_model_init_kwargs", options]):
        train._trainer(*train.parse([*command, *extra])[:3])
    assert [b["args"].trust_remote_code for b in built] == [True, True]
    teachers = [b["args"].teacher_model_init_kwargs["trust_remote_code"] for b in built]
    assert teachers == [False, True]


@pytest.mark.parametrize("setting", ["model_init_kwargs", "teacher_model_init_kwargs"])
def test_an_option_of_loading_that_a_model_does_not_take_is_named(folder, tmp_path, setting):
    result = invoke(folder, "--output_dir", str(tmp_path), f"--{setting}", '{"dtipe": "auto"}')
    assert result.exit_code == 1
    problem = "LlamaForCausalLM.__init__() got an unexpected keyword argument 'dtipe'."
    assert result.stderr.splitlines()[-1] == f"oprd: {setting}: {problem}"


def test_another_error_of_this_kind_is_a_bug(folder, tmp_path, monkeypatch):
    def broken(**options: object):
        raise TypeError("f() got an unexpected keyword argument 'x'")

    monkeypatch.setattr(train, "OPRDTrainer", broken)
    result = invoke(folder, "--output_dir", str(tmp_path))
    assert isinstance(result.exception, TypeError)


def test_lora_settings_reach_the_trainer(folder: Path, monkeypatch):
    built: list[dict] = []
    monkeypatch.setattr(train, "OPRDTrainer", lambda **options: built.append(options))
    command = ["--config", str(folder / "run.yaml"), "--use_peft", "--lora_r", "3"]
    train._trainer(*train.parse(command)[:3])
    assert built[0]["peft_config"].r == 3


def test_a_model_folder_without_a_model_is_one_sentence(folder: Path, tmp_path: Path):
    out = str(tmp_path / "out")
    result = invoke(folder, "--model_name_or_path", str(tmp_path), "--output_dir", out)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("oprd: ") and str(tmp_path) in result.stderr
    assert "Traceback" not in result.stderr
