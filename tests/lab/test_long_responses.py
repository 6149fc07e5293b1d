import pytest
import torch

from lab import chains
from lab.items import long_responses
from lab.items.compared import Compared
from lab.items.comparisons import LONG_ON_AND_OFF_POLICY
from lab.items.long_responses import LongResponses, by_length, by_slip
from lab.models import make_tokenizer
from lab.pairs import PAIRS
from lab.readings import Models, batch_of, read_states
from tests.lab import theory

WRITTEN = ("10+20=30", "5;1", "44=1+2", "77+7")


@pytest.fixture(scope="module")
def read():
    """Models over the lab's characters, and a batch of responses to one prompt."""
    made = theory.models()
    models = Models(made.student, made.teacher, make_tokenizer(chains.ALPHABET))
    asked, *written = (models.tokenizer(text)["input_ids"] for text in ("1+2=", *WRITTEN))
    return models, batch_of([(asked, ids) for ids in written])


def changed(text, place):
    """The same text with another character at one place."""
    return text[:place] + ("1" if text[place] != "1" else "2") + text[place + 1 :]


def test_accuracies_are_means_over_problems_of_as_many_terms():
    found = by_length([6, 8, 6, 8, 8], [1.0, 0.0, 0.5, 1.0, 0.5])
    assert found == {"6": 0.75, "8": 0.5}


def test_lengths_are_those_of_problems_in_the_order_in_which_an_evaluation_reports_them():
    lengths = long_responses._lengths(PAIRS["chains"])
    asked = [problem["prompt"] for problem in chains.prompts()]
    order = sorted(map(str, range(len(asked))))
    assert lengths == [chains.terms(asked[int(number)]) for number in order]


def test_states_that_have_read_a_slip_are_held_beside_those_of_others_at_the_same_places(read):
    models, batch = read
    places = [3, 1, None, 0]
    solutions = [w if p is None else changed(w, p) for w, p in zip(WRITTEN, places, strict=True)]
    student, teacher = read_states(models.student, batch), read_states(models.teacher, batch)
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

    found = by_slip(models, batch, solutions)
    assert found["places"] == len(both)
    assert found["before"] == pytest.approx(mean(before), abs=1e-5)
    assert found["after"] == pytest.approx(mean(after), abs=1e-5)


def test_where_nobody_slips_there_is_nothing_to_compare(read):
    models, batch = read
    with pytest.raises(ValueError, match="at no place"):
        by_slip(models, batch, WRITTEN)


def test_the_table_shows_accuracy_by_terms_and_what_a_slip_does(monkeypatch):
    monkeypatch.setattr(Compared, "table", lambda self, found: ["| the comparison |"])
    item = LongResponses("long", "a title", LONG_ON_AND_OFF_POLICY)
    found = {
        "by_length": {"OPRD": [{"6": 0.5, "10": 0.25}, {"6": 0.7, "10": 0.25}]},
        "by_slip": {"before": 0.9, "after": 0.7, "places": 12},
    }
    lines = item.table(found)
    assert lines[0] == "| the comparison |"
    assert lines[2] == "| terms | 6 | 10 |"
    assert lines[4].startswith("| OPRD | 60.0% [") and "| 25.0% [25.0, 25.0] |" in lines[4]
    assert "12 places: 90.0% before the first slip, 70.0% behind it." in lines[-1]
