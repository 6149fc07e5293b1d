import json

import pytest
import torch
from datasets import Dataset

from oprd.calibration.pairing import PairedLayers, check_prompts, recorded_pairs
from oprd.runs.record import read_record, write_record
from tests.calibration.pairs import student, teacher

ON = {
    "layer_pairing": "similarity",
    "student": {"weights": "s"},
    "prompts": {"count": 3, "hash": "p"},
}
ALIKE = torch.tensor([[0.5, 0.25, 0.0, 0.0], [0.0, 0.75, 0.5, 0.0], [0.0, 0.0, 0.0, -0.125]])


def measured():
    return PairedLayers.of(student(), teacher(), "all", "similarity", lambda: ALIKE, ON)


def test_pairs_remember_what_decided_them():
    made = measured()
    assert made.pairs == ((1, 1), (2, 2), (3, 3))
    assert made.similarity == ALIKE.tolist()
    assert made.facts() == {
        "layer_pairs": [[1, 1], [2, 2], [3, 3]],
        "layer_similarity": ALIKE.tolist(),
        "layer_similarity_on": ON,
    }
    assert PairedLayers.of_record(json.loads(json.dumps(made.facts()))) == made


def test_pairs_that_need_no_measurement_have_none():
    made = PairedLayers.of(student(), teacher(), "last:2", "from_end")
    assert made.facts() == {"layer_pairs": [[2, 3], [3, 4]]}
    assert PairedLayers.of_record(made.facts()) is None


def test_what_was_measured_is_shown_in_a_line(capsys):
    measured().show()
    assert capsys.readouterr().out == (
        "Layer pairs, student:teacher (CKA): 1:1 (0.50), 2:2 (0.75), 3:3 (0.00)\n"
    )
    PairedLayers.of(student(), teacher(), "all", "proportional").show()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("layers", "measured_on", "resumed", "kept"),
    [
        ((1, 2, 3), ON, False, True),
        ((1, 2, 3), ON, True, True),
        # A run that goes on keeps its pairs, a new one measures.
        ((1, 2, 3), {**ON, "prompts": None}, True, True),
        ((1, 2, 3), {**ON, "prompts": None}, False, False),
        # Neither takes those of another pairing that measures.
        ((1, 2, 3), {**ON, "layer_pairing": "angle"}, True, False),
        ((1, 2, 3), {**ON, "layer_pairing": "angle"}, False, False),
        # Of other layers there are no pairs.
        ((2, 3), ON, True, False),
    ],
)
def test_a_record_holds_the_pairs_of_its_own_run(tmp_path, layers, measured_on, resumed, kept):
    made = measured()
    write_record(tmp_path, made.facts(), {})
    found = recorded_pairs(lambda: read_record(tmp_path), layers, measured_on, resumed)
    assert found == (made if kept else None)


@pytest.mark.parametrize("facts", [None, {"layer_pairs": [[1, 1], [2, 3], [3, 4]]}])
def test_a_record_without_a_measurement_holds_none(tmp_path, facts):
    if facts is not None:
        write_record(tmp_path, facts, {})
    assert recorded_pairs(lambda: read_record(tmp_path), (1, 2, 3), ON, True) is None


def test_a_damaged_record_is_one_sentence(tmp_path):
    (tmp_path / "run.json").write_text('{"layer_pairs": [')
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        recorded_pairs(lambda: read_record(tmp_path), (1, 2, 3), ON, True)


def prompts(count):
    return Dataset.from_dict({"prompt": [str(n) for n in range(count)]})


@pytest.mark.parametrize(
    ("given", "limit", "message"),
    [
        (None, 8, "and there is no train_dataset: pass one, or name pairs, such as"),
        (prompts(9).to_iterable_dataset(), 8, "these are streamed: pass some with a length, or na"),
        (prompts(1), 8, "2 at least, got 1: add some, or name pairs, such as layer_pairing='1:1,2"),
        (prompts(9), None, "which need max_completion_length: set it, or name pairs"),
    ],
)
def test_prompts_that_give_no_rollouts_to_measure_on_are_refused(given, limit, message):
    with pytest.raises(ValueError, match=message):
        check_prompts(given, "similarity", limit)
    check_prompts(given, "proportional", limit)
    check_prompts(given, "1:1", limit)
