"""Figures of a pair are those of Transformers' own hidden states."""

import json

import pytest
import torch

from oprd.analysis.inspection.measure import check_pair, measure_pair
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.similarity import measure_similarity
from oprd.core.layers import pair_layers, pairs_text
from tests import tiny
from tests.calibration.pairs import rollouts, sibling, student, teacher
from tests.calibration.test_fit import states


def measured(models, made=None, **settings):
    settings = FitSettings(**{"positions": "all", **settings})
    return measure_pair(*models, check_pair(*models), made or rollouts(20), settings)


def test_states_of_one_width_have_cosines_pair_by_pair():
    models, made = (student(), sibling()), rollouts(20)
    found = measured(models, made)
    for pair in found["layers"]:
        cosines = [
            torch.cosine_similarity(
                *(states(model, rollout, [pair["student"]])[pair["student"]] for model in models)
            )
            for rollout in made
        ]
        assert pair["cosine"] == pytest.approx(float(torch.cat(cosines).mean()), abs=1e-5)
    (pairing,) = found["pairings"]
    assert pairing["name"] == "proportional" and pairing["pairs"] == "1:1,2:2,3:3"
    mean = sum(pair["cosine"] for pair in found["layers"]) / 3
    assert pairing["cosine"] == pytest.approx(mean)
    assert found["ends"]["first_k"]["mean"][-1] == pytest.approx(mean, abs=1e-5)
    assert not found["same_states"]


def test_states_of_other_widths_have_what_needs_none():
    models, made = (student(), teacher()), rollouts(20)
    found = measured(models, made)
    assert found["ends"] is None and {pair["cosine"] for pair in found["layers"]} == {None}
    table = torch.tensor(found["similarity"], dtype=torch.float64)
    expected = measure_similarity(*models, made, "all", 1, progress=False)
    torch.testing.assert_close(table, expected, atol=1e-4, rtol=0)
    assert found["models"] == {
        "student": {"layers": 3, "width": 32},
        "teacher": {"layers": 4, "width": 48},
    }
    json.dumps(found)


def test_another_pairing_is_looked_at_beside_the_default_alone():
    models = student(), teacher()
    found = measured(models)
    table = torch.tensor(found["similarity"], dtype=torch.float64)
    similar = pairs_text(pair_layers("all", 3, 4, "similarity", lambda: table))
    ways = {way["name"]: way["pairs"] for way in found["pairings"]}
    assert ways.pop("proportional") == "1:1,2:3,3:4"
    assert ways in ({"similarity": similar}, {})
    (named,) = measured(models, layer_pairing="1:2,3:4")["pairings"]
    assert (named["name"], named["pairs"]) == ("1:2,3:4", "1:2,3:4")
    (asked,) = measured(models, layer_pairing="similarity")["pairings"]
    assert (asked["name"], asked["pairs"]) == ("similarity", similar)


def test_layers_that_were_not_asked_for_are_in_the_table_of_similarities_alone():
    found = measured((student(), teacher()), layers=(2,))
    assert [pair["student"] for pair in found["layers"]] == [2]
    assert [layer["student"] for layer in found["bridge"]["layers"]] == [2]
    assert torch.tensor(found["similarity"]).shape == (3, 4)


def test_rollouts_are_described():
    made = rollouts(4)
    found = measured((student(), teacher()), made)["rollouts"]
    lengths = [len(rollout.completion_ids) for rollout in made]
    expected = {"count": 4, "mean_tokens": sum(lengths) / 4, "longest": max(lengths)}
    assert found == {**expected, "empty": 0, "cut": 1}


def test_heads_alone_may_differ():
    other = student()
    other.get_output_embeddings().weight.data.mul_(2)
    found = measured((student(), other))
    assert found["same_states"] and not found["heads"]["same"]


def test_a_teacher_that_is_the_student_is_refused():
    with pytest.raises(ValueError, match="to the last bit: there is nothing to learn from it"):
        check_pair(student(), student())


def test_a_model_that_lets_padding_in_is_refused(monkeypatch):
    def refuse(model, seen, role, layers):
        if role == "teacher":
            raise ValueError("padding before a sequence changes the teacher's states")

    monkeypatch.setattr("oprd.models.probe.check_padding", refuse)
    with pytest.raises(ValueError, match="changes the teacher's states"):
        check_pair(student(), teacher())


def test_a_constant_layer_is_refused():
    dead = tiny.model("llama", seed=1)
    dead.base_model.norm.weight.data.zero_()
    with pytest.raises(ValueError, match="student layer 3 is the same vector in all"):
        measured((dead, teacher()))
