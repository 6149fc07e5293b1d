"""Weights that wait on one device and are read on another."""

import pytest
import torch

from oprd.models.reader import Reader
from oprd.models.reading import View
from oprd.models.views import Views
from oprd.models.waiting import Waiting
from tests import tiny


@pytest.fixture
def waiting(monkeypatch):
    """A model and its places, of which the device is another part of the CPU's memory."""
    model = tiny.model(seed=1, tie_word_embeddings=True)
    made = Waiting(model, torch.device("cpu"))
    monkeypatch.setattr(made, "_moved", torch.Tensor.clone)
    return model, made


def addresses(model):
    return [tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())]


def test_a_model_is_on_its_device_only_within_and_its_weights_where_they_were_after(waiting):
    model, made = waiting
    before = addresses(model)
    with made.there():
        assert not set(addresses(model)) & set(before)
        # Tied weights are one there too.
        assert model.lm_head.weight is model.get_input_embeddings().weight
    assert addresses(model) == before


def test_it_comes_back_where_reading_fails(waiting):
    model, made = waiting
    before = addresses(model)
    with pytest.raises(RuntimeError, match="broken"), made.there():
        raise RuntimeError("broken")
    assert addresses(model) == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_only_the_teacher_that_reads_takes_memory_of_the_device():
    device = torch.device("cuda")
    student = tiny.model(seed=0).to(device)
    readers = [Reader(tiny.model(seed=seed)) for seed in (1, 2)]
    ids = (torch.arange(12).reshape(2, 6) + 60).to(device)
    views = Views((View.of_texts(ids),))
    expected = [Reader(tiny.model(seed=s).to(device)).read(student, views, [1]) for s in (1, 2)]
    torch.cuda.synchronize()
    for reader in readers:
        reader.wait_on_cpu(device)
    free = torch.cuda.memory_allocated()
    for reader, known in zip(readers, expected, strict=True):
        found = reader.read(student, views, [1], last=True)
        torch.testing.assert_close(found.states[1], known.states[1])
        assert reader.head(student).weight.device.type == "cuda"
        assert {p.device.type for p in reader.model.parameters()} == {"cpu"}
        del found
    assert torch.cuda.memory_allocated() - free < 2**16
