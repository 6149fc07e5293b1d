"""A teacher as an object: what it reads of a micro-batch, and what is kept of that."""

import pytest
import torch

from oprd.core.layers import LayerPair
from oprd.models.batch import MicroBatch
from oprd.models.reader import Reader
from oprd.models.reading import read
from oprd.models.teacher import Teacher
from tests import tiny

PAIRS = (LayerPair(1, 1), LayerPair(3, 2))


def batch(**options) -> MicroBatch:
    ids, mask = tiny.batch((9, 7))
    response = mask[:, 5:].bool()
    counts = {"response_count": torch.ones(()), "position_count": torch.ones(())}
    made = MicroBatch.of_rollouts(ids, mask, response, response, **counts)
    return MicroBatch(**{**vars(made), **options})


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(Reader(tiny.model(seed=2)), PAIRS)


def test_its_view_is_the_students_own_object(teacher):
    rollouts = batch()
    assert teacher.views(rollouts).views == (rollouts.view,)


def test_it_reads_the_layers_that_are_paired_without_a_graph(teacher):
    rollouts = batch()
    taught = teacher.read(tiny.model(), rollouts, states=True, last=False)
    expected = read(teacher.reader.model, rollouts.view, (1, 2)).states
    assert taught.head is None and taught.reading.last is None
    assert list(taught.reading.states) == [1, 2]
    for layer, rows in taught.reading.states.items():
        assert not rows.requires_grad
        assert torch.equal(rows, expected[layer])


def test_the_last_states_come_with_the_head_and_nothing_else(teacher):
    taught = teacher.read(tiny.model(), batch(), states=False, last=True)
    assert not taught.reading.states
    assert taught.reading.last is not None
    assert taught.head is not None and not taught.head.weight.requires_grad


def test_it_reads_once_for_all_updates_on_the_same_rollouts(teacher, monkeypatch):
    readings = []
    once = teacher._read
    monkeypatch.setattr(teacher, "_read", lambda *a, **o: readings.append(1) or once(*a, **o))
    rollouts = batch(comes_again=True)
    student = tiny.model()
    first = teacher.read(student, rollouts, states=True, last=True).reading
    first.states.clear()  # as a comparison leaves it
    second = teacher.read(student, rollouts, states=True, last=False).reading
    assert len(readings) == 1 and list(second.states) == [1, 2]
    last_use = MicroBatch(**{**vars(rollouts), "comes_again": False})
    teacher.read(student, last_use, states=True, last=True)
    assert len(readings) == 1 and not rollouts.kept


def test_what_was_read_for_less_is_read_anew(teacher, monkeypatch):
    rollouts, student = batch(comes_again=True), tiny.model()
    assert teacher.read(student, rollouts, states=True, last=False).reading.last is None
    assert teacher.read(student, rollouts, states=True, last=True).reading.last is not None


def test_without_keeping_nothing_is_held(teacher):
    rollouts = batch(comes_again=True)
    Teacher(teacher.reader, PAIRS, keep=False).read(tiny.model(), rollouts, states=True, last=False)
    assert not rollouts.kept
