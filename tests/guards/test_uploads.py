from concurrent.futures import Future
from fnmatch import fnmatch
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers.trainer
from huggingface_hub.utils import filter_repo_objects
from peft import LoraConfig

from oprd.guards.uploads import chosen_uploads, students_files
from oprd.runs.manifest import write_manifest
from tests.training.runs import LORA, trainer
from tests.training.test_resume import steps

PROMPTS = [f"PRIVATEQUESTION {number}" for number in range(8)]
TOKEN = "hf_" + "abcdefgh" * 4


class Hub:
    """Takes what the library would send."""

    def __init__(self):
        self.uploads = []

    def create_repo(self, name, **_):
        return SimpleNamespace(repo_id=f"me/{name}")

    def upload_folder(
        self, *, folder_path, allow_patterns=None, ignore_patterns=None, path_in_repo="", **_
    ):
        folder = Path(folder_path)
        there = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        sent = filter_repo_objects(
            there, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        )
        self.uploads.append((path_in_repo, {name: (folder / name).read_bytes() for name in sent}))
        done = Future()
        done.set_result(None)
        return done


@pytest.fixture
def hub(monkeypatch):
    made = Hub()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: made)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return made


@pytest.mark.parametrize("strategy", ["every_save", "checkpoint", "all_checkpoints", "end"])
@pytest.mark.parametrize("lora", [False, True])
def test_what_is_uploaded_holds_the_student_and_neither_prompts_nor_secrets(
    tmp_path, hub, strategy, lora
):
    folder = tmp_path / "run"
    (folder / "broken" / "step-000001").mkdir(parents=True)
    (folder / "broken" / "step-000001" / "rank-0.safetensors").write_bytes(b"PRIVATEQUESTION")
    (folder / "thesis.json").write_text("mine")
    made = trainer(
        **steps(
            folder, max_steps=2, save_steps=1, push_to_hub=True, hub_strategy=strategy,
            hub_always_push=True, hub_token=TOKEN, sample_steps=1, log_completions=True,
        ),
        prompts=PROMPTS,
        peft_config=LoraConfig(**LORA) if lora else None,
    )  # fmt: skip
    made.train()
    made.save_model()
    made.push_to_hub()
    assert "PRIVATEQUESTION" in (folder / "samples.jsonl").read_text()
    assert not list(tmp_path.rglob("training_args.bin"))
    assert made.args.hub_token == TOKEN
    places = [place for place, _ in hub.uploads]
    assert places.count("") == {"end": 2}.get(strategy, 4)
    weights = "adapter_model.safetensors" if lora else "model.safetensors"
    for place, files in hub.uploads:
        content = b"".join(files.values())
        assert b"PRIVATEQUESTION" not in content and TOKEN.encode() not in content
        assert {weights, "tokenizer.json", "config.json"} - (
            {"config.json"} if lora else set()
        ) <= {*files}
        of_trainer = {name for name in files if fnmatch(name, "*state*") or "optimizer" in name}
        if place == "":
            assert not of_trainer and not [n for n in files if n.startswith(("broken", "thesis"))]
            assert (
                not {"run.json", "metrics.jsonl", "samples.jsonl", "manifest.json"} & files.keys()
            )
        else:
            assert {"manifest.json", "optimizer.pt", "trainer_state.json"} <= files.keys()
    kinds = {"checkpoint": {"last-checkpoint"}, "all_checkpoints": {"checkpoint-1", "checkpoint-2"}}
    assert set(places) - {""} == kinds.get(strategy, set())
    assert "README.md" in hub.uploads[-1][1]


def test_a_name_is_no_pattern(tmp_path, hub):
    (tmp_path / "model[1].safetensors").write_bytes(b"weights")
    (tmp_path / "model1.safetensors").write_bytes(b"of another run")
    write_manifest(tmp_path, {}, ["model[1].safetensors"])
    real = transformers.trainer.hf_api
    with chosen_uploads(tmp_path, tmp_path):
        transformers.trainer.hf_api().upload_folder(folder_path=str(tmp_path))
    assert list(hub.uploads[0][1]) == ["model[1].safetensors"]
    assert transformers.trainer.hf_api is real


def test_without_a_manifest_nothing_is_known_to_be_the_students(tmp_path):
    (tmp_path / "model.safetensors").touch()
    assert students_files(tmp_path) == []
