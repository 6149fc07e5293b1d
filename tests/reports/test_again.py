"""What a page says of how to run a run again is taken as it stands, and gives the same settings."""

import html
import json

import pytest
import yaml
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import oprd
from oprd.cli.arguments import parse
from oprd.cli.main import app
from oprd.cli.preview import asked
from oprd.reports import page
from oprd.reports.again import again, yaml_text
from oprd.reports.told import read
from oprd.runs.folder import read_run
from oprd.runs.record import ASKED, GIVEN, read_record
from oprd.secrets import HIDDEN
from oprd.text import escaped_lines
from tests import tiny
from tests.reports.made import write_run
from tests.reports.test_page import HOSTILE
from tests.training.runs import LORA, PROMPTS, settings, trainer

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(value=VALUES)
def test_what_is_written_as_yaml_is_read_as_it_was(value):
    assert yaml.safe_load(yaml_text(value)) == value


@pytest.mark.parametrize(
    "value", [HOSTILE.replace("\ud800", ""), "no", "1e5", "~", "12:30", "é\u2028"]
)
def test_what_a_page_escapes_is_read_as_it_was(value):
    """A page writes what does not print as an escape, which stands between quotes."""
    assert yaml.safe_load(escaped_lines(yaml_text({value: [value]}))) == {value: [value]}


def shown(folder):
    """The code that the page shows."""
    text = page.html(read([read_run(folder)]))
    code = text[text.index("<pre>") + 5 : text.index("</pre>")]
    return html.unescape(code)


YAML = """
model_name_or_path: student
teacher_model_name_or_path: teacher
dataset_name: rows.jsonl
output_dir: run
max_steps: 1
learning_rate: 1e-5
layers: [1, 2]
positions: all
scale: unit
representation_weight: {from: 1.0, to: 0.25, steps: 1}
per_device_train_batch_size: 2
max_completion_length: 4
max_prompts: 4
use_cpu: true
save_strategy: "no"
report_to: none
run_name: "a: b # c 'd' é"
"""


def test_the_yaml_of_a_page_is_taken_by_the_command_and_says_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("student", 1), ("teacher", 2)):
        tiny.model(seed=seed).save_pretrained(name)
        tiny.tokenizer().save_pretrained(name)
    rows = "".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS)
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "train.yaml").write_text(YAML)
    done = CliRunner().invoke(app, ["train", "--config", "train.yaml"])
    assert done.exit_code == 0, done.output
    (tmp_path / "again.yaml").write_text(shown(tmp_path / "run"))
    first, second = (parse(["--config", f"{name}.yaml"]) for name in ("train", "again"))
    assert asked(second.training, second.data, second.models) == asked(
        first.training, first.data, first.models
    )
    assert second.training.to_dict() == first.training.to_dict()
    assert (second.data, second.models) == (first.data, first.models)


def run_script(code, monkeypatch, **names):
    """What the script gives to the trainer, without training."""
    taken = {}

    class Trainer:
        def __init__(self, **arguments):
            taken.update(arguments)

        def train(self):
            taken["trained"] = True

    monkeypatch.setattr(oprd, "OPRDTrainer", Trainer)
    exec(code, {"prompts": Dataset.from_dict({"prompt": PROMPTS}), **names})
    assert taken["trained"]
    return taken


def test_the_script_of_a_page_runs_and_says_the_same(tmp_path, monkeypatch):
    options = {"scale": "unit", "layers": "1,2", "representation_weight": 3.0, "seed": 7}
    made = trainer(tmp_path / "run", **options)
    made.args.max_steps = 2
    made.train()
    given_at_first = settings(tmp_path / "run", **options)
    code = shown(tmp_path / "run")
    taken = run_script(code, monkeypatch, student=1, teacher=2)
    assert (taken["model"], taken["teacher_model"]) == (1, 2)
    assert taken["args"].to_dict() == given_at_first.to_dict()
    # What is a default is left out.
    assert "top_p" not in code and "dataset_name" not in code


def test_settings_that_were_changed_before_the_trainer_was_made_are_told(tmp_path):
    args = settings(tmp_path)
    args.max_steps = 3
    args.top_p = 0.9
    found = args.given.values(args)
    assert (found["max_steps"], found["top_p"]) == (3, 0.9)
    assert "layers" not in found and "bf16" not in found


def test_what_the_record_does_not_hold_is_asked_for(tmp_path):
    made = trainer(tmp_path / "run", peft_config=_lora())
    made.train()
    said, code = again(read_run(tmp_path / "run"))
    for text in ("the 16 prompts", "student, built in memory", "teacher, built in memory", "r 4"):
        assert text in said
    assert "peft_config=peft_config" in code and "model=student," in code


def _lora():
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(**LORA)


def test_a_secret_is_neither_told_nor_passed_on(tmp_path):
    folder = write_run(tmp_path / "mine", given={"hub_token": HIDDEN, "seed": 3})
    said, code = again(read_run(folder))
    assert "hub_token, a secret" in said and "hub_token" not in code and "seed=3" in code


def test_a_record_of_an_older_version_gives_what_it_holds(tmp_path):
    said, code = again(read_run(write_run(tmp_path / "mine")))
    assert "the 100 prompts from additions" in said
    assert "max_steps=20" in code and "model='path/to/student'" in code


@pytest.mark.parametrize("odd", [{GIVEN: 3}, {GIVEN: []}, {ASKED: "x"}, {"identity": 3}])
def test_no_record_takes_the_page_down(tmp_path, odd):
    assert page.html(read([read_run(write_run(tmp_path / "odd", **odd))]))


def test_the_command_and_the_trainer_record_what_they_were_given(tmp_path):
    trainer(tmp_path, seed=5).train()
    record = read_record(tmp_path)
    assert record is not None and record[GIVEN]["seed"] == 5 and ASKED not in record
