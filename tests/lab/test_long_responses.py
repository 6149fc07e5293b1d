from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig

from lab import chains, models, moments
from lab.items import long_responses
from lab.items.compared import Compared
from lab.items.comparisons import LONG_ON_AND_OFF_POLICY
from lab.items.long_responses import LongResponses, by_length, by_slip
from lab.models import Recipe, make_tokenizer
from lab.moments import Moment
from lab.pairs import PAIRS, Pair
from lab.readings import Models, batch_of, read_states
from tests.evaluation.samples import evaluation
from tests.lab import theory

WRITTEN = ("10+20=30", "5;1", "44=1+2", "77+7")


@pytest.fixture(scope="module")
def read():
    """Models over the lab's characters, and a batch of responses to one prompt."""
    made = theory.models()
    pair = Models(made.student, made.teacher, make_tokenizer(chains.ALPHABET))
    asked, *written = (pair.tokenizer(text)["input_ids"] for text in ("1+2=", *WRITTEN))
    return pair, batch_of([(asked, ids) for ids in written])


def changed(text, place):
    """The same text with another character at one place."""
    return text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :]


def test_accuracies_are_means_over_problems_of_as_many_terms():
    found = by_length([6, 8, 6, 8, 8], [1.0, 0.0, 0.5, 1.0, 0.5])
    assert found == {"6": 0.75, "8": 0.5}


def test_lengths_are_those_of_problems_as_an_evaluation_reports_them():
    asked = enumerate(chains.prompts())
    solved = {str(n): [chains.terms(problem["prompt"]) == 7] for n, problem in asked}
    found = by_length(long_responses._lengths(PAIRS["chains"]), evaluation(solved).averages())
    assert found == {"6": 0.0, "7": 1.0, "8": 0.0, "9": 0.0, "10": 0.0}


def test_beside_a_comparison_stand_accuracies_by_length_and_the_students_states(
    tmp_path, monkeypatch
):
    for module in (models, moments):
        monkeypatch.setattr(module, "CACHE", tmp_path)
    monkeypatch.setattr(models, "EXAMPLES", 16)
    monkeypatch.setattr(long_responses, "ROLLOUTS", 64)
    recipe = Recipe("chains", layers=2, width=16, steps=2, batch=4, keep_every=1)
    pair = Pair(Moment(recipe, 1), Moment(recipe, 2))
    monkeypatch.setitem(PAIRS, "chains", pair)
    assert AutoConfig.from_pretrained(pair.student.path()).max_position_embeddings == chains.CONTEXT
    reported = [float(n == 6) for n in long_responses._lengths(pair)]
    run = SimpleNamespace(
        scores=lambda: {"reported": {"problems": reported}, "tuning": {"problems": [0.5] * 250}}
    )
    comparison = SimpleNamespace(pair="chains", methods=("OPRD",), best=lambda method: [run, run])
    found = LongResponses("long", "a title", LONG_ON_AND_OFF_POLICY).besides(comparison)
    assert [seed["6"] for seed in found["by_length"]["OPRD"]] == [1.0, 1.0]
    assert [seed["10"] for seed in found["by_length"]["OPRD"]] == [0.0, 0.0]
    slip = found["by_slip"]
    assert slip["places"] > 0 and -1 <= slip["before"] <= 1 and -1 <= slip["after"] <= 1


def test_states_that_have_read_a_slip_are_held_beside_those_of_others_at_the_same_places(read):
    pair, batch = read
    places = [3, 1, None, 0]
    solutions = [w if p is None else changed(w, p) for w, p in zip(WRITTEN, places, strict=True)]
    student, teacher = read_states(pair.student, batch), read_states(pair.teacher, batch)
    last = max(student)
    rows = iter(torch.cosine_similarity(student[last], teacher[last], dim=1).tolist())
    before, after = {}, {}
    for own, slip in zip(batch.response.tolist(), places, strict=True):
        for place in range(sum(own)):
            slipped = slip is not None and place > slip
            (after if slipped else before).setdefault(place, []).append(next(rows))
    both = set(before) & set(after)
    weights = {place: min(len(before[place]), len(after[place])) for place in both}

    def mean(of):
        means = (weights[p] * sum(of[p]) / len(of[p]) for p in both)
        return sum(means) / sum(weights.values())

    found = by_slip(pair, batch, solutions)
    assert found["places"] == len(both)
    assert found["before"] == pytest.approx(mean(before), abs=1e-5)
    assert found["after"] == pytest.approx(mean(after), abs=1e-5)
    difference = found["difference"]
    assert difference["mean"] == pytest.approx(mean(after) - mean(before), abs=1e-5)
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert difference == by_slip(pair, batch, solutions)["difference"]


def test_where_nobody_slips_there_is_nothing_to_compare(read):
    pair, batch = read
    with pytest.raises(ValueError, match="at no place"):
        by_slip(pair, batch, WRITTEN)


def test_the_table_shows_accuracy_by_terms_and_what_a_slip_does(monkeypatch):
    monkeypatch.setattr(Compared, "table", lambda self, found: ["| the comparison |"])
    item = LongResponses("long", "a title", LONG_ON_AND_OFF_POLICY)
    found = {
        "by_length": {"OPRD": [{"6": 0.5, "10": 0.25}, {"6": 0.7, "10": 0.25}]},
        "by_slip": {
            "before": 0.9,
            "after": 0.7,
            "places": 12,
            "difference": {"mean": -0.2, "low": -0.3, "high": -0.1},
        },
    }
    lines = item.table(found)
    assert lines[0] == "| the comparison |"
    assert lines[2] == "| terms | 6 | 10 |"
    assert lines[4].startswith("| OPRD | 60.0% [") and "| 25.0% [25.0, 25.0] |" in lines[4]
    assert lines[-1].endswith(
        "12 places: 90.0% before a slip, 70.0% behind it, -20.0 [-30.0, -10.0] points."
    )
