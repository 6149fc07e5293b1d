import json
import time
from pathlib import Path

import pytest
from huggingface_hub import constants

from oprd.training.teachers.source import TeacherSource, load_teacher, teacher_tokenizer
from tests import tiny
from tests.training.runs import settings

OWN = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM

Path({ran!r}).touch()

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model with code beside it, which says that it ran."""
    folder = tmp_path / "own"
    tiny.model(seed=2).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    auto = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    config |= {"model_type": "own", "architectures": ["OwnModel"], "auto_map": auto}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(OWN.format(ran=str(tmp_path / "ran")))
    return folder


@pytest.mark.parametrize("asked", [False, True])
def test_code_of_a_teacher_does_not_run_unless_asked_for(
    tmp_path: Path, repository: Path, monkeypatch, asked: bool
):
    monkeypatch.setattr(
        "transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules")
    )
    options = {"teacher_model_init_kwargs": {"trust_remote_code": True}} if asked else {}
    # Trust in the student's says nothing about it.
    args = settings(tmp_path / "run", trust_remote_code=True, **options)
    if asked:
        assert type(load_teacher(TeacherSource(str(repository)), args)).__name__ == "OwnModel"
    else:
        with pytest.raises(ValueError, match="custom code"):
            load_teacher(TeacherSource(str(repository)), args)
    assert (tmp_path / "ran").exists() == asked


def test_a_teacher_on_a_hub_that_is_away_is_refused_at_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    began = time.monotonic()
    args = settings(tmp_path, teacher_model_name_or_path="owner/teacher")
    source = TeacherSource.resolve(None, args)
    assert source == TeacherSource("owner/teacher")
    with pytest.raises(FileNotFoundError, match=r"teacher 'owner/teacher': .*couldn't connect"):
        load_teacher(source, args)
    assert teacher_tokenizer(source, args) is None
    assert time.monotonic() - began < 10
