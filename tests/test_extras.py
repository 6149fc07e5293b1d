"""Extras that resolve, each by itself, and one sentence with the way out where one is missing."""

import ast
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.extras import check_installed, require
from tests.docs.test_recipes import OVERRIDES, places  # noqa: F401 # a fixture

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# For whoever works on oprd, or runs its demo.
NOT_OF_A_RUN = {"demo", "dev", "docs"}
# Not among what make setup installs: they are for machines with a GPU.
NOT_PINNED = {"deepspeed"}
TRAIN = [
    *("train", "--model_name_or_path", "student", "--teacher_model_name_or_path", "teacher"),
    *("--dataset_name", "prompts.jsonl", "--output_dir", "run"),
    *(
        part
        for name, value in OVERRIDES.items()
        if name != "use_vllm"
        for part in (f"--{name}", value)
    ),
]
# By extra: what it brings that is missing, and a command that asks for it.
MISSING = {
    "peft": ("peft", [*TRAIN, "--use_peft", "true"]),
    "vllm": ("vllm", [*TRAIN, "--use_vllm", "true"]),
    "deepspeed": ("deepspeed", [*TRAIN, "--deepspeed", "zero.json"]),
    "tasks": (
        "reasoning_gym",
        ["eval", "--model", "student", "--tasks", "reasoning_gym:chain_sum"],
    ),
    "math": ("math_verify", ["eval", "--model", "student", "--tasks", "sums=sums.jsonl"]),
    "report": ("scipy", ["eval", "--model", "student", "--tasks", "additions"]),
}


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = (line.split("==") for line in lines if "==" in line)
    return {name.lower().replace("_", "-"): version for name, version in pinned}


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_an_extra_asks_for_is_in_the_tested_set(extra):
    for text in EXTRAS[extra]:
        asked = Requirement(text)
        if asked.name == PROJECT["name"]:
            assert asked.extras <= EXTRAS.keys()
        elif asked.name not in NOT_PINNED:
            assert asked.specifier.contains(pins()[asked.name.lower().replace("_", "-")]), text


def test_the_extras_that_sentences_name_are_those_that_there_are():
    named = set()
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text()
        named |= set(re.findall(r"oprd\[([a-z]+)\]", text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "require",
                "check_installed",
            ):
                extra = node.args[1]
                assert isinstance(extra, ast.Constant), path
                named.add(extra.value)
    assert named == EXTRAS.keys() - NOT_OF_A_RUN == MISSING.keys()


@pytest.mark.parametrize("extra", MISSING)
def test_a_missing_extra_is_one_sentence_with_the_way_out(extra, places, monkeypatch):  # noqa: F811
    module, command = MISSING[extra]
    monkeypatch.chdir(places)
    row = json.dumps({"problem": "1 + 1", "answer": "2"})
    Path("sums.jsonl").write_text(row + "\n")
    Path("zero.json").write_text("{}")
    loaded = [name for name in sys.modules if name.startswith(f"{module}.")]
    for name in (module, *loaded):
        monkeypatch.setitem(sys.modules, name, None)
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 1
    said = [line for line in done.output.splitlines() if line.startswith("oprd: ")]
    assert len(said) == 1
    assert said[0].endswith(f"needs {module}, which is not installed: pip install 'oprd[{extra}]'.")


def test_what_is_there_is_not_refused():
    assert require("json", "report", "this") is json
    check_installed("json", "report", "this")
    with pytest.raises(ImportError, match=r"^this needs nothing_here, .*'oprd\[report\]'\.$"):
        check_installed("nothing_here", "report", "this")
