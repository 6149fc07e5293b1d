import json
from dataclasses import replace
from pathlib import Path

import pytest

from oprd.analysis.inspection.asked import Asked
from oprd.analysis.inspection.recipe import STEP
from oprd.calibration.bridge.settings import FitSettings
from oprd.models.sampling import Sampling
from tests import tiny

ASKED = Asked(
    "owner/student",
    "./teacher",
    "additions",
    FitSettings(positions="all"),
    Sampling(1, 1.0, 1.0, 8),
)


def test_what_trains_is_named_by_a_path_that_holds_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("teacher", "base"):
        Path(name).mkdir()
    asked = replace(ASKED, teacher_base="base", max_prompts=9)
    assert asked.training(Path("out/run")) == {
        "model_name_or_path": "owner/student",
        "teacher_model_name_or_path": str(tmp_path / "teacher"),
        "teacher_base_model_name_or_path": str(tmp_path / "base"),
        "dataset_name": "additions",
        "output_dir": str(tmp_path / "out/run"),
    }


def test_training_draws_and_reads_as_the_inspection_did():
    asked = replace(
        ASKED,
        sampling=Sampling(1, 0.7, 0.9, 8, min_p=0.1),
        template_options={"think": True},
        bad_rows="skip",
        long_prompts="drop",
        prompt_column="question",
        dtype="bfloat16",
    )
    settings = asked.training(Path("run"))
    assert {name: settings[name] for name in list(settings)[4:]} == {
        "dtype": "bfloat16",
        "prompt_column": "question",
        "chat_template_kwargs": {"think": True},
        "bad_rows": "skip",
        "long_prompts": "drop",
        "temperature": 0.7,
        "top_p": 0.9,
        "min_p": 0.1,
    }


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_prompts": 1}, "max_prompts must be a whole number of at least 2"),
        ({"bad_rows": "maybe"}, "bad_rows must be one of error, skip"),
        ({"long_prompts": "cut"}, "long_prompts must be one of error, drop"),
        ({"dtype": "int3"}, "dtype must be one of auto, float32"),
    ],
)
def test_illegal_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        replace(ASKED, **values)


def test_a_single_prompt_is_refused(tmp_path):
    (tmp_path / "one.jsonl").write_text('{"prompt": "alone"}\n')
    asked = replace(ASKED, prompts=str(tmp_path / "one.jsonl"))
    with pytest.raises(ValueError, match="hold 1, and an inspection needs 2 at least"):
        asked.load_prompts(tiny.tokenizer())


def test_enough_prompts_are_read_to_know_whether_they_fill_a_step(tmp_path):
    few = tmp_path / "few.jsonl"
    few.write_text("".join(f'{{"prompt": "{n}"}}\n' for n in range(40)))
    asked = replace(ASKED, prompts=str(few), max_prompts=2)
    assert len(asked.load_prompts(tiny.tokenizer())) == STEP
    assert len(replace(asked, max_prompts=30).load_prompts(tiny.tokenizer())) == 30


def test_no_prompts_are_refused(tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(ValueError, match=r"none\.jsonl"):
        replace(ASKED, prompts=str(tmp_path / "none.jsonl")).load_prompts(tiny.tokenizer())


@pytest.mark.parametrize("name", ["-", "/dev/null"])
def test_a_stream_is_refused(name):
    with pytest.raises(ValueError, match=r"are a stream, .* save them to a \.jsonl file"):
        replace(ASKED, prompts=name).load_prompts(tiny.tokenizer())


def test_json_holds_what_was_asked():
    assert json.loads(json.dumps(ASKED.facts()))["settings"]["positions"] == "all"
    assert replace(ASKED, dtype="auto").facts()["dtype"] == "auto"
