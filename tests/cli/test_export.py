"""An export is what the student began with, with other weights, and nothing of the training."""

import json
import re
import stat
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from typer.testing import CliRunner

from oprd import OPRDTrainer
from oprd.cli.main import app
from oprd.evaluation.records import rewrite_records
from oprd.runs.record import student_of_run
from tests import tiny
from tests.evaluation.samples import chat_tokenizer, header
from tests.reports.made import record_of
from tests.reports.test_page import HOSTILE
from tests.training.runs import LORA, settings
from tests.training.test_card import CHAT


@pytest.fixture
def places(tmp_path):
    """A student with settings of its own, a teacher, and where the run goes."""
    for seed, name in enumerate(("student", "teacher")):
        model = tiny.model(seed=seed)
        model.generation_config = GenerationConfig(
            do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=tiny.EOS, max_new_tokens=7
        )
        model.save_pretrained(tmp_path / name)
        tokenizer = chat_tokenizer("assistant: ")
        tokenizer.padding_side = "right"
        tokenizer.save_pretrained(tmp_path / name)
    (tmp_path / "student" / "README.md").write_text("---\nlicense: apache-2.0\n---\nmine\n")
    return tmp_path


def train(places: Path, lora: bool, **options) -> Path:
    made = OPRDTrainer(
        str(places / "student"),
        str(places / "teacher"),
        settings(places / "run", gradient_checkpointing=True, max_steps=2, **options),
        Dataset.from_dict({"prompt": CHAT}),
        peft_config=LoraConfig(**LORA) if lora else None,
    )
    made.train()
    made.save_model()
    return places / "run"


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("lora", [False, True])
def test_an_export_is_the_student_with_other_weights(places, monkeypatch, capsys, lora):
    folder, output = train(places, lora), places / "out"
    assert json.loads((folder / "tokenizer_config.json").read_text())["padding_side"] == "left"
    shown = run(folder, output)
    assert str(output) in shown and "licence" not in shown
    before, after = (AutoTokenizer.from_pretrained(p) for p in (places / "student", output))
    assert after.padding_side == before.padding_side == "right"
    assert after.chat_template == before.chat_template
    generation = [GenerationConfig.from_pretrained(p) for p in (places / "student", output)]
    assert generation[0].to_diff_dict() == generation[1].to_diff_dict()
    exported = AutoModelForCausalLM.from_pretrained(output).eval()
    assert exported.config.use_cache
    trained = AutoModelForCausalLM.from_pretrained(places / "student" if lora else folder).eval()
    if lora:
        trained = PeftModel.from_pretrained(trained, folder)
    ids, mask = tiny.batch((5, 9))
    logits = [m(input_ids=ids, attention_mask=mask).logits for m in (exported, trained)]
    assert torch.allclose(*logits, atol=1e-5)
    began = AutoModelForCausalLM.from_pretrained(places / "student").eval()
    assert not torch.allclose(logits[0], began(input_ids=ids, attention_mask=mask).logits)
    names = {file.name for file in output.iterdir()}
    assert not names & {"training_args.bin", "optimizer.pt", "run.json", "metrics.jsonl"}
    assert all(stat.S_IMODE(f.stat().st_mode) & 0o044 for f in output.iterdir())
    card = (output / "README.md").read_text()
    assert "license: apache-2.0" in card and "for 2 steps" in card and str(places) not in card
    (snippet,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    monkeypatch.chdir(output)
    exec(compile(snippet.replace("max_new_tokens=128", "max_new_tokens=4"), "card", "exec"), {})
    assert capsys.readouterr().out


def test_an_adapter_may_stay_one(places):
    output = places / "out"
    run(train(places, lora=True), output, "--no-merge", "--license", "mit")
    assert (output / "adapter_config.json").is_file()
    assert not list(output.glob("model*.safetensors"))
    card = (output / "README.md").read_text()
    assert "license: mit" in card and "library_name: peft" in card
    assert AutoTokenizer.from_pretrained(output).padding_side == "right"


def test_a_checkpoint_is_exported_by_its_name_and_its_steps(places):
    folder = train(places, lora=False, save_strategy="steps", save_steps=1)
    run(folder, places / "out", "--which", "checkpoint-1")
    assert "for 1 steps" in (places / "out" / "README.md").read_text()


def test_nothing_is_uploaded_unless_that_is_asked_for(places, monkeypatch):
    import huggingface_hub

    asked = []

    class Api:
        def create_repo(self, name, **options):
            asked.append((name, options))

        def upload_folder(self, **options):
            asked.append(options)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    folder = train(places, lora=False)
    run(folder, places / "out")
    assert not asked
    run(folder, places / "second", "--push_to_hub", "me/mine", "--private")
    assert [asked[0], asked[1]["repo_id"]] == [
        ("me/mine", {"private": True, "exist_ok": True}),
        "me/mine",
    ]
    assert 'name = "me/mine"' in (places / "second" / "README.md").read_text()


def test_no_secret_of_the_environment_or_of_the_settings_is_exported(places, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run(train(places, lora=False, hub_token="hf_other"), places / "out")
    for file in (places / "out").iterdir():
        content = file.read_bytes()
        assert b"hf_secret" not in content and b"hf_other" not in content, file.name


def test_hostile_names_are_text_in_the_card(places):
    folder = train(places, lora=False)
    record = json.loads((folder / "run.json").read_text())
    hostile = HOSTILE.replace("\ud800", "")
    record |= {"teacher": hostile, "dataset": hostile}
    (folder / "run.json").write_text(json.dumps(record))
    run(folder, places / "out", "--name", hostile)
    card = (places / "out" / "README.md").read_text().split("---\n", 2)[2]
    assert "\x1b" not in card and "\u202e" not in card
    assert "<script>" not in re.sub(r"(`+).*?(?<!`)\1(?!`)", "", card)


@pytest.mark.parametrize("made", ["no run", "no model", "used output"])
def test_what_cannot_be_exported_is_said_in_a_sentence(places, made):
    folder, output = places / "run", places / "out"
    folder.mkdir()
    if made != "no run":
        (folder / "run.json").write_text('{"student": "x"}')
    if made == "used output":
        output.mkdir()
        (output / "kept").write_text("mine")
        tiny.model().save_pretrained(folder)
    done = CliRunner().invoke(app, ["export", str(folder), str(output)])
    assert done.exit_code == 1
    (line,) = done.output.strip().splitlines()
    assert line.startswith("oprd: ")
    assert made != "used output" or [f.name for f in output.iterdir()] == ["kept"]


@pytest.mark.parametrize("which", ["best", "checkpoint-7", "samples", "../student", ""])
def test_a_student_that_is_not_there_is_refused_before_anything_is_written(
    places, monkeypatch, which
):
    folder = train(places, lora=False, save_strategy="steps", save_steps=1)
    monkeypatch.chdir(places)
    done = CliRunner().invoke(app, ["export", "run", "new/out", "--which", which])
    assert done.exit_code == 1
    assert done.output.strip() == (
        f"oprd: 'run' holds no student {which!r}: --which takes last, checkpoint-2, checkpoint-1."
    )
    assert folder.is_dir() and not Path("new").exists()


def test_a_card_tells_of_its_own_student_alone(places):
    folder = train(places, lora=False, save_strategy="steps", save_steps=1)
    with (folder / "metrics.jsonl").open("a") as log:
        for step in (0, 1, 2):
            figures = {f"eval/sums/avg@4{end}": 0.1 + step / 4 for end in ("", "_low", "_high")}
            log.write(json.dumps({"step": step, **figures}) + "\n")
    for name in ("teacher", "student before", "student after", "step-000001", "step-000002"):
        file = folder / ("samples" if name[:5] != "step-" else f"evaluations/{name}")
        file = file / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        records = [record_of(str(n), "x", n % 2 == 0) for n in range(4)]
        rewrite_records(file, header(model=name, asked=4, task="sums"), records)
    cards = []
    for which in ("last", "checkpoint-1"):
        run(folder, places / which, "--which", which)
        cards.append((places / which / "README.md").read_text())
    last, first = cards
    for text in ("student after", "step-000002", "step 2", "60.0%"):
        assert text in last and text not in first
    for text in ("student before", "| teacher |", "step-000001", "step 1", "35.0%"):
        assert text in first, text


def test_a_card_tells_of_no_student_that_the_run_has_no_more(places):
    folder = train(places, lora=False)
    for name in ("student before", "student after"):
        file = folder / "evaluations" / name / "sums.jsonl"
        file.parent.mkdir(parents=True)
        records = [record_of(str(n), "x", n % 2 == 0) for n in range(4)]
        facts = header(model=name, asked=4, task="sums", saved=student_of_run(folder))
        rewrite_records(file, facts, records)
    assert "left out" not in run(folder, places / "first")
    assert "student after" in (places / "first" / "README.md").read_text()
    train(places, lora=False, learning_rate=0.2, overwrite=True)
    shown = run(folder, places / "second")
    assert "evaluations/student after/sums.jsonl: it is of another student than the run" in shown
    card = (places / "second" / "README.md").read_text()
    assert "student before" in card and "student after" not in card


@pytest.mark.parametrize("there", [False, True])
def test_an_export_that_fails_leaves_no_half_folder(places, monkeypatch, there):
    folder, output = train(places, lora=False), places / "out"
    if there:
        output.mkdir()

    def fail(*_):
        assert list(output.glob("*.safetensors"))
        raise OSError("No space left on device")

    monkeypatch.setattr("oprd.runs.card.card_text", fail)
    done = CliRunner().invoke(app, ["export", str(folder), str(output)])
    assert done.exit_code == 1 and "No space left" in done.output
    assert output.exists() == there and not (there and list(output.iterdir()))


@pytest.mark.parametrize("text", ["---\nlicense: [\n---\n", "---\n- mit\n---\n", "\x00", "---\n"])
def test_a_card_of_the_student_that_cannot_be_read_names_no_licence(places, text):
    (places / "student" / "README.md").write_text(text)
    shown = run(train(places, lora=False), places / "out")
    assert "names no licence" in shown


def test_a_secret_in_a_name_is_not_exported(places, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    run(train(places, lora=False), places / "out", "--name", "model-hf_secret-mine")
    card = (places / "out" / "README.md").read_text()
    assert "hf_secret" not in card and "mine" in card
