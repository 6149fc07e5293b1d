"""The README is short, says what this is, and what it shows is run with tiny models."""

import re
import tomllib
from pathlib import Path

import yaml

from docs.generate import reference
from oprd.runs.card import PAPER
from tests.docs.test_recipes import places  # noqa: F401 # a fixture
from tests.docs.workshop import ROOT, blocks, commands
from tests.evaluation.samples import chat_tokenizer

README = (ROOT / "README.md").read_text()
NAME = "on-policy representation distillation"


def test_the_python_example_trains_on_messages_and_shows_the_first(
    places,  # noqa: F811 # the fixture
    monkeypatch,
    capsys,
    caplog,
):
    (example,) = (text for language, text in blocks(README) if language == "python")
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


def test_it_is_short():
    assert len(README.splitlines()) < 150


def test_the_settings_of_every_kind_of_teacher_are_settings():
    (table,) = re.findall(r"^\| the teacher \|.*\n\|.*\n((?:\|.*\n)+)", README, re.MULTILINE)
    known = set(re.findall(r"^\| `(\w+)` \|", reference.settings(), re.MULTILINE))
    shown = [yaml.safe_load(text) for text in re.findall(r"`(\w+: [^`]+)`", table)]
    assert len(shown) == 5
    assert {name for settings in shown for name in settings} <= known


def test_it_leads_from_a_look_to_a_model_in_ten_lines():
    shown = [words for language, text in blocks(README) if not language for words in commands(text)]
    assert [words[1] for words in shown if words[0] == "make"] == ["demo", "test"]
    ways = [words[1] for words in shown if words[0] == "oprd"]
    assert ways == ["doctor", "inspect", "train", "eval", "report", "export"]


def test_the_name_is_spelled_out_wherever_one_meets_it_first():
    """Another paper's method has the same four letters."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text().split("theme:")[0])
    for text in (
        README.splitlines()[0],
        README.split("\n\n")[1],
        project["description"],
        citation["title"],
        PAPER["title"],
        site["site_name"],
    ):
        assert NAME in " ".join(text.split()).lower(), text
    assert NAME in project["keywords"] and NAME in citation["keywords"]
    assert "reverse* distillation" in README


def test_version_and_licence_are_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    named = re.findall(r'__version__ = "([\d.]+)"', (ROOT / "src/oprd/version.py").read_text())
    changes = re.findall(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert named == [citation["version"]] and changes[0] == named[0]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == citation["license"] == "Apache-2.0"
    assert Path(ROOT / "LICENSE").read_text().lstrip().startswith("Apache License")
