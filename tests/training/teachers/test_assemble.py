"""Teachers are read before the first step as they are read in every step."""

import pytest
import torch

from oprd.models.waiting import Waiting
from oprd.training.teachers import assemble
from tests import tiny
from tests.training.runs import trainer
from tests.training.teachers.test_own import adapted, last


@pytest.fixture
def seen(monkeypatch):
    """Lets something look at the models of a calibration wherever they are handed over."""

    def look(at):
        for name in ("obtain_pairs", "obtain_spaces"):
            known = getattr(assemble, name)

            def handed(*args, known=known, **options):
                (models,) = (given for given in args if isinstance(given, assemble.FitModels))
                at(models)
                return known(*args, **options)

            monkeypatch.setattr(assemble, name, handed)

    return look


def test_a_teacher_that_waits_is_on_the_device_while_it_is_calibrated(tmp_path, monkeypatch, seen):
    # The device is another part of the CPU's memory.
    monkeypatch.setattr(Waiting, "_moved", lambda self, tensor: tensor.clone())
    places = []
    seen(lambda models: places.append(next(models.teacher.parameters()).data_ptr()))
    options = {"layer_pairing": "similarity", "bridge": "fit", "bridge_rank": 3}
    made = trainer(tmp_path, teacher_offload="cpu", **options)
    waits_at = next(made._teacher.reader.model.parameters()).data_ptr()
    # At one place in both, and nowhere in between.
    assert len(places) == 2 and len(set(places)) == 1 and waits_at not in places


def test_a_teacher_on_the_students_base_is_calibrated_without_the_students_adapter(tmp_path, seen):
    states = []

    def read(models):
        with models.teacher_active():
            states.append(last(models.teacher))

    seen(read)
    trainer(tmp_path, student=adapted(), teacher_source="base")
    assert len(states) == 2
    for found in states:
        torch.testing.assert_close(found, last(tiny.model(seed=1)))
