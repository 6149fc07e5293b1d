import copy
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tokenizers import decoders
from typer.testing import CliRunner

from oprd.analysis.peak import estimate_run
from oprd.calibration.models import FitModels
from oprd.cli.main import app
from oprd.models import memory
from tests import tiny
from tests.calibration.pairs import sibling, student, teacher
from tests.models.built_tokenizers import sentencepiece


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pair")
    for name, model in (("student", student()), ("sibling", sibling()), ("wider", teacher())):
        model.save_pretrained(path / name)
        tiny.tokenizer().save_pretrained(path / name)
    return path


@pytest.fixture
def without_picture(monkeypatch):
    """Drawing is most of an inspection of models this small."""
    monkeypatch.setattr("oprd.reports.inspect_picture.plot_inspection", lambda *_: None)


def inspect(folder: Path, *options: str, output: str = "out"):
    arguments = {
        "--student": f"{folder}/student",
        "--teacher": f"{folder}/sibling",
        "--prompts": "additions",
        "--output": f"{folder}/{output}",
        "--max_completion_length": "8",
        "--max_prompts": "12",
    }
    flat = [part for pair in arguments.items() for part in pair]
    return CliRunner().invoke(app, ["inspect", *flat, *options])


def test_an_inspection_leaves_figures_a_picture_and_a_run(folder: Path):
    done = inspect(folder)
    assert done.exit_code == 0, done.output
    out = folder / "out"
    files = {"inspect.json", "inspect.png", "rollouts.jsonl", "train.yaml"}
    assert {path.name for path in out.iterdir()} == files
    for part in (
        "how text is read",
        "First prompt as the student reads it: What is ",
        "by pair of",
    ):
        assert part in done.stdout
    assert f"oprd train --config {out}/train.yaml" in done.stdout.replace("\n", "")
    report = json.loads((out / "inspect.json").read_text())
    assert report["advice"]["method"].startswith("OPRD")
    assert report["asked"]["teacher"] == f"{folder}/sibling"
    assert report["provenance"]["student"]["weights"] != report["provenance"]["teacher"]["weights"]
    settings = yaml.safe_load((out / "train.yaml").read_text())
    assert settings["scale"] == "unit" and settings["max_completion_length"] == 8
    assert settings["output_dir"] == str(out / "run")


def test_memory_is_looked_at_before_models_take_of_it(folder: Path, monkeypatch, without_picture):
    loaded = FitModels.load
    happened = []
    monkeypatch.setattr(memory, "free_bytes", lambda _: happened.append("looked at") or 2**30)
    monkeypatch.setattr(
        FitModels, "load", lambda *a, **o: happened.append("loaded") or loaded(*a, **o)
    )
    assert inspect(folder, output="looked").exit_code == 0
    assert happened == ["looked at", "loaded"]


def test_a_second_inspection_reads_the_rollouts_of_the_first(
    folder: Path, monkeypatch, without_picture
):
    assert inspect(folder, output="again").exit_code == 0
    monkeypatch.setattr(
        "oprd.models.generate.TransformersEngine._batch",
        lambda *_: pytest.fail("a rollout was written"),
    )
    again = inspect(folder, "--positions", "last_k", "--position_k", "3", output="again")
    assert again.exit_code == 0, again.output
    settings = yaml.safe_load((folder / "again/train.yaml").read_text())
    assert (settings["positions"], settings["position_k"]) == ("last_k", 3)


@pytest.mark.parametrize("dtype", [None, "auto", "bfloat16", "float32"])
def test_what_is_told_of_memory_is_of_the_run_that_is_written(
    folder: Path, dtype: str | None, monkeypatch, without_picture
):
    for name, model in (("student", student()), ("sibling", sibling())):
        model.bfloat16().save_pretrained(folder / "halves" / name)
        tiny.tokenizer().save_pretrained(folder / "halves" / name)
    pair = "--student", f"{folder}/halves/student", "--teacher", f"{folder}/halves/sibling"
    out, given = f"told-{dtype}", () if dtype is None else ("--dtype", dtype)
    # Prompts of one length are as long where all of them are looked at.
    (folder / "prompts.jsonl").write_text('{"prompt": "What is 1 + 2?"}\n' * 40)
    prompts = "--prompts", f"{folder}/prompts.jsonl"
    assert inspect(folder, *pair, *prompts, *given, output=out).exit_code == 0
    report = json.loads((folder / out / "inspect.json").read_text())
    settings = yaml.safe_load((folder / out / "train.yaml").read_text())
    assert report["asked"]["dtype"] == settings.get("dtype") == dtype
    needs = []
    monkeypatch.setattr(
        "oprd.cli.train.estimate_run",
        lambda *args, **options: needs.append(estimate_run(*args, **options)) or needs[-1],
    )
    config = "--config", f"{folder}/{out}/train.yaml"
    done = CliRunner().invoke(app, ["train", "--preview", *config])
    assert done.exit_code == 0, done.output
    assert [asdict(need) for need in needs] == [report["memory"]["bytes"]]
    element = 4 if dtype in (None, "float32") else 2
    assert needs[0].gradients == element * sum(p.numel() for p in student().parameters())


@pytest.mark.parametrize("count", [2, 10])
def test_a_run_on_few_prompts_is_written_so_that_it_trains(
    folder: Path, count: int, without_picture
):
    lines = (json.dumps({"prompt": f"What is {n} + 2?"}) for n in range(count))
    (folder / f"{count}.jsonl").write_text("\n".join(lines))
    out = f"few-{count}"
    done = inspect(folder, "--prompts", f"{folder}/{count}.jsonl", output=out)
    assert done.exit_code == 0, done.output
    config = "--config", f"{folder}/{out}/train.yaml"
    done = CliRunner().invoke(app, ["train", "--preview", *config])
    assert done.exit_code == 0, done.output
    assert "Nothing was trained." in done.output


def test_models_of_other_widths_are_advised_the_output_space(folder: Path, without_picture):
    done = inspect(folder, "--teacher", f"{folder}/wider", output="wide")
    assert done.exit_code == 0, done.output
    settings = yaml.safe_load((folder / "wide/train.yaml").read_text())
    assert settings["output_loss"] == "reverse_kl"
    assert ("bridge" in settings) == (settings.get("representation_weight") != 0)


def stranger(folder: Path, **options: Any) -> str:
    """A teacher of another vocabulary, and where it is."""
    reads_with = sentencepiece()
    place = folder / f"stranger{len(options)}"
    tiny.reading(reads_with, seed=4, **options).save_pretrained(place)
    reads_with.save_pretrained(place)
    return str(place)


@pytest.mark.parametrize("width", [32, 48])
def test_a_teacher_of_another_vocabulary_is_looked_at_as_it_reads_its_own(
    folder: Path, width: int, without_picture
):
    output = f"own-{width}"
    teacher = stranger(folder, hidden_size=width)
    done = inspect(folder, "--teacher", teacher, output=output)
    assert done.exit_code == 0, done.output
    said = " ".join(done.stdout.replace("│", " ").split())
    assert "id 0: '!', '<unk>'" in said
    assert "As the teacher reads it, in tokens of its own: What is " in said
    assert "Both models have read the same at" in said
    assert "over classes of tokens that begin alike" in said
    settings = yaml.safe_load((folder / output / "train.yaml").read_text())
    assert (settings["teacher_tokenizer"], settings["output_loss"]) == ("own", "reverse_kl")
    assert ("bridge" in settings) == (width == 48)
    report = json.loads((folder / output / "inspect.json").read_text())
    assert report["rows"]["own"] and 0 < report["rows"]["shared"] <= 1
    assert report["asked"]["teacher"] == teacher


def test_a_teacher_of_the_same_family_needs_no_bridge_in_its_own_tokens(
    folder: Path, without_picture
):
    """The student's vocabulary has a token more, and its states are the teacher's nearly."""
    longer = tiny.tokenizer().__class__.from_pretrained(f"{folder}/student")
    longer.add_tokens(["<more>"])
    model = student()
    model.resize_token_embeddings(len(longer))
    model.save_pretrained(folder / "longer")
    longer.save_pretrained(folder / "longer")
    done = inspect(folder, "--student", f"{folder}/longer", output="longer-out")
    assert done.exit_code == 0, done.output
    settings = yaml.safe_load((folder / "longer-out/train.yaml").read_text())
    assert (settings["teacher_tokenizer"], settings["state_loss"]) == ("own", "mse")
    assert "bridge" not in settings


def test_a_vocabulary_whose_bytes_are_not_known_is_refused_before_models_load(
    folder: Path, monkeypatch
):
    words = copy.deepcopy(sentencepiece())
    words.backend_tokenizer.decoder = decoders.WordPiece()
    tiny.reading(words).save_pretrained(folder / "words")
    words.save_pretrained(folder / "words")
    monkeypatch.setattr(
        "oprd.calibration.models.load_model", lambda *_, **__: pytest.fail("a model was loaded")
    )
    done = inspect(folder, "--teacher", f"{folder}/words", output="words-out")
    assert done.exit_code == 1
    said = " ".join(done.stderr.split())
    assert "which cannot read the text in its own either. The teacher's tokenizer:" in said
    assert "WordPiece" in said and "byte-level BPE" in said
    assert not list((folder / "words-out").iterdir())


def test_a_teacher_that_is_the_student_is_refused_before_a_rollout(folder: Path):
    done = inspect(folder, "--teacher", f"{folder}/student", output="same")
    assert done.exit_code == 1
    assert "there is nothing to learn from it" in done.stderr
    assert not list((folder / "same").iterdir())


def test_a_teacher_adapter_is_loaded_on_the_base_that_is_named(folder: Path, without_picture):
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(student(), LoraConfig(target_modules="all-linear", r=2))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    adapted.save_pretrained(folder / "adapter")
    base = ("--teacher_base_model_name_or_path", f"{folder}/student")
    done = inspect(folder, "--teacher", f"{folder}/adapter", *base, output="adapted")
    assert done.exit_code == 0, done.output
    settings = yaml.safe_load((folder / "adapted/train.yaml").read_text())
    assert settings["teacher_base_model_name_or_path"] == f"{folder}/student"
    assert settings["state_loss"] == "mse"


def test_prompts_of_strangers_are_shown_escaped(folder: Path, without_picture):
    texts = ["[red]<b>\x1b[2J\u202e [/x]", "two", "three"]
    lines = [json.dumps({"prompt": text}) for text in texts]
    (folder / "hostile [bold].jsonl").write_text("\n".join(lines))
    done = inspect(folder, "--prompts", f"{folder}/hostile [bold].jsonl", output="[i]\x1b[31m\x07")
    assert done.exit_code == 0, done.output
    assert "[red]<b>\\x1b[2J\\u202e [/x]" in done.stdout
    # The runner takes escape sequences out by itself, but no bell.
    assert not {"\x1b", "\x07", "\u202e"} & set(done.output)
    assert "[i]\\x1b[31m\\x07" in done.stdout.replace("\n", "")
    settings = yaml.safe_load((folder / "[i]\x1b[31m\x07/train.yaml").read_text())
    assert settings["dataset_name"] == f"{folder}/hostile [bold].jsonl"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--student", "./nowhere"), "student './nowhere': there is no such file or folder"),
        (("--teacher", "a\0b"), "holds a NUL"),
        (("--teacher", "<b>../x"), "is no file or folder here, and no possible name"),
        (("--prompts", "/dev/null"), "are a stream"),
        (("--prompts", "./none.jsonl"), "there is no such file or folder"),
        (("--max_prompts", "1"), "max_prompts must be a whole number of at least 2"),
        (("--layers", "4"), "layer 4 is outside 1..3"),
        (("--layers", "2,2"), "layers repeat"),
        (("--layer_pairing", "similar"), "did you mean similarity"),
        (("--positions", "some"), "positions must be one of"),
        (("--temperature", "-1"), "temperature must be finite and at least 0"),
        (("--chat_template_kwargs", "yes"), "chat_template_kwargs must be a JSON object"),
        (("--max_completion_length", "250"), "leave such prompts out"),
        (("--output", "/dev/null/x"), "cannot be written to"),
    ],
)
def test_bad_input_is_one_sentence(folder: Path, options: tuple[str, ...], message: str):
    done = inspect(folder, *options, output="bad")
    assert done.exit_code == 1
    assert message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("oprd:") == 1


def test_layers_that_do_not_exist_are_refused_before_a_rollout(folder: Path):
    assert inspect(folder, "--layers", "4", output="early").exit_code == 1
    assert not list((folder / "early").iterdir())


def test_without_matplotlib_everything_else_is_written(folder: Path, monkeypatch):
    def missing(*_):
        raise ImportError("plots need matplotlib: pip install 'oprd[report]'.")

    monkeypatch.setattr("oprd.reports.inspect_picture.plot_inspection", missing)
    done = inspect(folder, output="plain")
    assert done.exit_code == 0 and "plots need matplotlib" in done.stdout
    assert (folder / "plain/train.yaml").is_file()


def test_help_names_every_option():
    shown = CliRunner().invoke(app, ["inspect", "--help"])
    assert shown.exit_code == 0
    for option in ("--student", "--teacher", "--prompts", "--output", "--teacher_base_model_name"):
        assert option in shown.stdout


@pytest.mark.slow(minutes=1)
@pytest.mark.parametrize("model", ["sibling", "wider", "stranger0"])
def test_what_is_advised_runs_as_it_is(folder: Path, model: str):
    stranger(folder)
    output = f"run-{model}"
    assert inspect(folder, "--teacher", f"{folder}/{model}", output=output).exit_code == 0
    config = ("--config", f"{folder}/{output}/train.yaml")
    done = CliRunner().invoke(app, ["train", *config, "--max_steps", "1"])
    assert done.exit_code == 0, done.output
    assert (folder / output / "run/model.safetensors").is_file()
