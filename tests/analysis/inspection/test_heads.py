import pytest
import torch

from oprd.analysis.inspection.heads import compare_heads
from oprd.core.output.spectrum import head_spectrum
from oprd.models.probe import probe
from tests import tiny


def compared(student, teacher):
    return compare_heads(student, teacher, (probe(student), probe(teacher)))


def test_each_head_has_its_spectrum():
    student, teacher = tiny.model(seed=1), tiny.model(seed=2, hidden_size=16)
    found = compared(student, teacher)
    for role, model in (("student", student), ("teacher", teacher)):
        spectrum = head_spectrum(model.get_output_embeddings().weight)
        assert found[role]["values"] == pytest.approx(spectrum.values.tolist())
        assert found[role]["rank"] == spectrum.rank
        assert found[role]["vocabulary"] == tiny.VOCAB
    assert not found["same"]


def test_the_same_weights_are_said_to_be_the_same():
    assert compared(tiny.model(seed=1), tiny.model(seed=1))["same"]


def test_a_head_that_cannot_be_read_says_why():
    bent = tiny.model(seed=1)
    head = bent.get_output_embeddings()
    bent.set_output_embeddings(torch.nn.Sequential(head))
    found = compared(tiny.model(seed=1), bent)
    assert "LM head" in found["teacher"]["problem"] and "values" in found["student"]


def test_a_head_whose_logits_are_not_the_models_own_says_so():
    bent = tiny.model(seed=1)
    bent.get_output_embeddings().register_forward_hook(lambda *of: of[-1] * 3)
    found = compared(bent, tiny.model(seed=1))
    assert "other logits than the model itself" in found["student"]["problem"]
