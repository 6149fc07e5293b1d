"""A folder in which the blocks of a page run from top to bottom, with tiny models for its own.

A block of YAML or Python whose first line is a comment with a file's name is that file. Other YAML
is the settings of a run, over those of a plain one; other Python is run; a block without a language
or of bash is commands. Blocks of text are what commands show.
"""

import json
import re
import shlex
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from accelerate.commands.config.config_args import load_config_from_file
from peft import LoraConfig, get_peft_model
from typer.testing import CliRunner

from docs.generate import notebooks
from oprd import OPRDConfig
from oprd.cli.main import app
from tests import tiny
from tests.docs.test_recipes import OVERRIDES
from tests.evaluation.samples import chat_tokenizer
from tests.models.built_tokenizers import byte_level

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
NAME = re.compile(r"# ([\w-]+\.(?:yaml|py))\n")
SHOWN = {"text", "json", "bibtex"}
PLAIN = {
    "model_name_or_path": "student",
    "teacher_model_name_or_path": "teacher",
    "dataset_name": "prompts.jsonl",
}
SMALL = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "logging_steps": 1}
IN_PYTHON = {
    "max_steps": 2,
    "max_completion_length": 8,
    "save_strategy": "no",
    "use_cpu": True,
    "report_to": [],
}
# By command, so that it ends soon.
SHORT = {
    "eval": ("--limit", "2", "--max_new_tokens", "8"),
    "inspect": ("--max_prompts", "8", "--max_completion_length", "8"),
    "bridge": ("--max_prompts", "24", "--max_completion_length", "8"),
    "watch": ("--once",),
}
# What a notebook does often, once.
FEWER = (("range(1, 301)", "range(1, 21)"), ("(70, 300)", "(10, 20)"), ("== 70", "== 10"))


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block."""
    return FENCE.findall(text)


def commands(text: str) -> list[list[str]]:
    """The commands of a block, a line each but for those that a stroke goes on with."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def furnish(folder: Path) -> None:
    """Lay out the models and the prompts that pages speak of."""
    chat = chat_tokenizer("assistant: ")
    models = {
        "student": tiny.model(seed=1),
        "teacher": tiny.model(seed=2),
        "other": tiny.model(seed=5),
        "wider": tiny.model(seed=3, num_hidden_layers=4, hidden_size=48),
        "whole": tiny.model(seed=4),
    }
    for name, model in models.items():
        model.save_pretrained(folder / name)
        chat.save_pretrained(folder / name)
    theirs = byte_level()
    strange = {"vocab_size": len(theirs), "eos_token_id": theirs.eos_token_id, "hidden_size": 48}
    tiny.model(seed=6, **strange).save_pretrained(folder / "stranger")
    theirs.save_pretrained(folder / "stranger")
    adapter = get_peft_model(tiny.model(seed=1), LoraConfig(r=2, target_modules=["q_proj"]))
    adapter.peft_config["default"].base_model_name_or_path = str(folder / "student")
    adapter.save_pretrained(folder / "adapter")
    (folder / "path" / "to").mkdir(parents=True)
    for name in ("student", "teacher", "wider"):
        (folder / "path" / "to" / name).symlink_to(folder / name)
    rows = [
        {"prompt": f"what is {n}?", "solution": f"It is {n}.", "teacher": ("sums", "words")[n % 2]}
        for n in range(32)
    ]
    for name, columns in (
        ("prompts", ["prompt"]),
        ("solved", ["prompt", "solution"]),
        ("routed", ["prompt", "solution", "teacher"]),
    ):
        lines = (json.dumps({column: row[column] for column in columns}) for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in lines))
    _furnish_callers(folder)


def _furnish_callers(folder: Path) -> None:
    """Two models whose chat template knows tools."""
    tokenizer = tiny.calling_tokenizer()
    size: dict[str, Any] = {"vocab_size": 300, "max_position_embeddings": 4096}
    for seed, name in enumerate(("caller", "teaching-caller")):
        model = tiny.model("qwen3", seed=seed, eos_token_id=tokenizer.eos_token_id, **size)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


class Workshop:
    """Runs a page in the current folder, which is furnished.

    Args:
        monkeypatch: pytest's.
        instead: what stands for what in the page's blocks.

    Attributes:
        elsewhere: commands that cannot run here, as they stand on the page.
    """

    def __init__(self, monkeypatch: Any, instead: dict[str, str] | None = None) -> None:
        self.elsewhere: list[list[str]] = []
        self._monkeypatch, self._instead = monkeypatch, instead or {}
        self._names: dict[str, Any] = {}
        self._runs = 0
        construct = OPRDConfig.__init__

        def short(settings: OPRDConfig, **given: Any) -> None:
            construct(settings, **{**given, **SMALL, **IN_PYTHON})

        self._short = short

    def run(self, text: str) -> None:
        """Run every block of a page."""
        for language, block in blocks(text):
            for shown, ours in self._instead.items():
                block = block.replace(shown, ours)
            if language in SHOWN:
                continue
            if language in ("yaml", "python") and (name := NAME.match(block)):
                Path(name[1]).write_text(block[name.end() :])
            elif language == "yaml":
                self._train(block)
            elif language == "python":
                self._execute(block)
            else:
                assert language in ("", "bash"), language
                for command in commands(block):
                    self.command(command)

    def command(self, words: list[str]) -> None:
        """Run a command of a page."""
        match words:
            case ["oprd", *rest]:
                self._oprd(rest)
            case ["accelerate", "launch", "--config_file", file, "-m", "oprd", *rest]:
                assert load_config_from_file(file).num_processes
                self._oprd(rest)
            case ["python", "first_run.py"]:
                self._notebook("first_run")
            case ["python", file, *rest]:
                self._python(file, rest)
            case ["make", target]:
                assert f"\n{target}:" in (ROOT / "Makefile").read_text()
            case ["pip", "install", *rest]:
                check_extras(" ".join(rest))
            case _:
                self.elsewhere.append(words)

    def _oprd(self, words: list[str]) -> None:
        further = self._of_train(words) if words[0] == "train" else SHORT.get(words[0], ())
        done = CliRunner().invoke(app, [*words, *further])
        assert done.exit_code == 0, f"oprd {' '.join(words)}\n{done.output}"

    def _of_train(self, words: list[str]) -> list[str]:
        config = words[words.index("--config") + 1] if "--config" in words else None
        given = yaml.safe_load(Path(config).read_text()) if config else {}
        given |= {name.removeprefix("--"): value for name, value in pairwise(words)}
        few = {**OVERRIDES, **SMALL, **_few(given)}
        # A recipe's own models and prompts are not here.
        few |= {
            name: ours
            for name, ours in PLAIN.items()
            if not _is_here(name, given.get(name)) and _is_wanted(name, given)
        }
        return [part for name, value in few.items() for part in (f"--{name}", str(value))]

    def _train(self, block: str) -> None:
        self._runs += 1
        own = yaml.safe_load(block)
        plain = {name: ours for name, ours in PLAIN.items() if _is_wanted(name, own)}
        file = Path(f"settings-{self._runs}.yaml")
        file.write_text(yaml.safe_dump({"output_dir": f"run-{self._runs}", **plain, **own}))
        self._oprd(["train", "--config", str(file)])

    def _execute(self, block: str) -> None:
        with self._monkeypatch.context() as patched:
            patched.setattr(OPRDConfig, "__init__", self._short)
            exec(compile(block, "a page", "exec"), self._names)

    def _notebook(self, name: str) -> None:
        text = (ROOT / "docs" / "notebooks" / f"{name}.py").read_text()
        code = notebooks.code(text).replace("assert after > before", "")
        for often, once in FEWER:
            assert often in code
            code = code.replace(often, once)
        with self._monkeypatch.context() as patched:
            patched.setattr(OPRDConfig, "__init__", self._short)
            exec(compile(code, name, "exec"), {"__name__": "__main__"})

    def _python(self, file: str, rest: list[str]) -> None:
        path = Path(file) if Path(file).exists() else ROOT / file
        few = self._of_train(rest) if rest[:1] == ["train"] else []
        with self._monkeypatch.context() as patched:
            patched.setattr(sys, "argv", [file, *rest, *few])
            names = {"__name__": "__main__", "__file__": str(path)}
            patched.syspath_prepend(str(path.parent))
            try:
                exec(compile(path.read_text(), str(path), "exec"), names)
            except SystemExit as ended:
                assert not ended.code, f"{file}: {ended.code}"


def check_extras(words: str) -> None:
    """Whether all extras that an installation names are there."""
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for named in re.findall(r"\[([\w,]+)\]", words):
        assert set(named.split(",")) <= set(known), named


def _few(given: dict[str, Any]) -> dict[str, Any]:
    """What a bridge and an evaluation take less of."""
    few: dict[str, Any] = {}
    if given.get("bridge") == "fit":
        few["bridge_prompts"] = 24
        if "heads" not in str(given.get("bridge_basis")):
            few["bridge_rank"] = 4
    if given.get("eval_tasks"):
        few |= {"eval_steps": 1, "eval_limit": 2, "eval_max_new_tokens": 8}
    return few


def _is_here(name: str, value: Any) -> bool:
    if name == "dataset_name" and value in ("additions", "arithmetic"):
        return True
    return value is not None and Path(str(value)).exists()


def _is_wanted(name: str, given: dict[str, Any]) -> bool:
    """Whether a run names a teacher by its path."""
    if name != "teacher_model_name_or_path":
        return True
    return not given.get("teachers") and given.get("teacher_source", "path") == "path"
