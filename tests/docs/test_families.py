"""The recipe for a teacher of another family, with tiny models in the place of real ones."""

import importlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from oprd.evaluation.tasks.base import shared_prompts
from tests import tiny
from tests.models.built_tokenizers import byte_level, sentencepiece

FOLDER = Path(__file__).parents[2] / "recipes" / "families"
NAMES = ("sums", "supervised", "make_teacher", "families")


@pytest.fixture(scope="module")
def recipe():
    """Its modules, which import one another as scripts of one folder do."""
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    finally:
        sys.path.remove(str(FOLDER))
        for name in NAMES:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of a student, and of a base of another family."""
    root = tmp_path_factory.mktemp("families")
    for name, reads_with in (("student", byte_level()), ("base", sentencepiece())):
        tiny.reading(reads_with, seed=len(name)).save_pretrained(root / name)
        reads_with.save_pretrained(root / name)
    return root


def run(monkeypatch, module, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["script", *arguments])
    module.main()


def test_problems_have_two_terms_and_none_is_in_both_splits(recipe):
    train, test = recipe.sums.problems("train", 50, 1), recipe.sums.task("test", 20, 0)
    assert len(train) == 50 and len(test.problems) == 20
    assert all(len(problem.terms) == 2 for problem in train)
    assert all(problem.id.count("+") == 1 for problem in test.problems)
    other = recipe.sums.task("train", 50, 1)
    assert not shared_prompts(other, test)


def test_a_sequence_is_the_prompt_and_the_rest_of_the_text_with_an_end(recipe):
    reads_with = sentencepiece()
    ((prompt, response),) = recipe.supervised.sequences(reads_with, [("ask ", "the cat")])
    assert prompt == reads_with("ask ")["input_ids"]
    assert reads_with.decode([*prompt, *response[:-1]]) == "ask the cat"
    assert response[-1] == reads_with.eos_token_id


@pytest.mark.parametrize("whole", [True, False])
def test_training_raises_what_is_given_beside_the_candidates(recipe, whole):
    model = tiny.reading(byte_level(), seed=1)
    given = recipe.supervised.sequences(byte_level(), [("ask", "the cat")] * 8)
    (_, response) = given[0]
    candidates = None if whole else torch.tensor(sorted({*response, 7, 9}))

    def nats() -> float:
        ids = torch.tensor([[*given[0][0], *response]])
        with torch.no_grad():
            logits = model(ids).logits[0, -len(response) - 1 : -1]
        if candidates is not None:
            kept = torch.full_like(logits, -torch.inf)
            kept[:, candidates] = logits[:, candidates]
            logits = kept
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor(response)))

    before = nats()
    options = {"steps": 8, "learning_rate": 3e-3, "candidates": candidates}
    seconds = recipe.supervised.train(model, given, **options)
    assert nats() < before - 0.1 and seconds > 0


def test_a_teacher_is_made_and_stops_at_its_end_of_turn(recipe, models, monkeypatch):
    place = str(models / "teacher")
    run(
        monkeypatch, recipe.make_teacher, "--base", str(models / "base"), "--output", place,
        "--steps", "4", "--rounds", "2", "--batch_size", "2",
    )  # fmt: skip
    made = AutoModelForCausalLM.from_pretrained(place)
    assert made.generation_config.eos_token_id == sentencepiece().eos_token_id
    base = AutoModelForCausalLM.from_pretrained(models / "base")
    both = zip(made.parameters(), base.parameters(), strict=True)
    moved = [not torch.equal(a, b) for a, b in both]
    assert any(moved)


@pytest.mark.parametrize("method", ["bridge", "distributions", "supervised"])
def test_a_run_leaves_what_was_solved_and_its_seconds(
    recipe, models, monkeypatch, method, tmp_path
):
    run(
        monkeypatch, recipe.families, method, "--student", str(models / "student"),
        "--teacher", str(models / "base"), "--output", str(tmp_path), "--steps", "2",
        "--rollouts", "2", "--problems", "4",
    )  # fmt: skip
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["solved"]) == {"teacher", "before", "after"}
    assert found["seconds"] > 0 and found["method"] == method


def test_the_supervised_student_trains_in_float32_as_the_distilled_one_does(
    recipe, tmp_path, monkeypatch
):
    tiny.reading(byte_level(), seed=1).bfloat16().save_pretrained(tmp_path)
    byte_level().save_pretrained(tmp_path)
    given = {"teacher": str(tmp_path), "student": str(tmp_path), "steps": 1, "rollouts": 2}
    options = SimpleNamespace(**given, seed=0, learning_rate=1e-4)
    seen = []
    monkeypatch.setattr(recipe.families, "train", lambda student, *_, **__: seen.append(student))
    recipe.families.supervise(options)
    assert {weight.dtype for weight in seen[0].parameters()} == {torch.float32}


def test_every_method_is_settings_of_a_run(recipe, tmp_path):
    from oprd import OPRDConfig

    own = {"teacher_tokenizer": "own", "bridge": "fit", "output_dir": str(tmp_path)}
    for settings in recipe.families.METHODS.values():
        made = OPRDConfig(**{**own, **settings})
        assert made.bridged or made.output_loss != "none"
