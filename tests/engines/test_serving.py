"""A teacher on a server of vLLM's, on a CPU, beside the same teacher here."""

import json
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from oprd.core.capture import num_layers
from oprd.models.generate import left_pad
from oprd.models.reader import Reader
from oprd.models.reading import View
from oprd.models.views import Views
from oprd.serving.client import StatesServer
from oprd.serving.reader import ServedReader
from recipes.demo.smollm2 import base_model_folder
from tests import tiny
from tests.engines.models import WIDE, save
from tests.engines.process import needs_vllm
from tests.engines.served import vllm_server
from tests.serving.test_reader import Place, rollouts
from tests.training.runs import largest_difference, trainer, weights

pytestmark = needs_vllm

# Of a row, in float32.
PARITY = 1e-4


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("teacher"), 2, initializer_range=0.2)


@pytest.fixture(scope="module")
def place(teacher: Path, tmp_path_factory: pytest.TempPathFactory):
    states = tmp_path_factory.mktemp("server") / "states"
    with vllm_server(teacher, states, range(4)) as url:
        yield Place(url, str(states), 60.0)


def test_every_layer_has_the_rows_of_the_teacher_here(teacher: Path, place: Place):
    reader = ServedReader.connect(str(teacher), place, nullcontext)
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    views = Views((rollouts(),))
    # Twice: the second time the server has the prompts' beginnings in its cache.
    for _ in range(2):
        found = reader.read(model, views, [1, 2, 3], last=True)
        own = Reader(model).read(model, views, [1, 2, 3], last=True)
        assert found.last is not None and own.last is not None
        pairs = [(found.states[n], own.states[n]) for n in (1, 2, 3)] + [(found.last, own.last)]
        for theirs, ours in pairs:
            error = (theirs - ours).norm(dim=1) / ours.norm(dim=1)
            assert error.max() < PARITY
    assert not list(Path(place.teacher_server_folder).iterdir())


@pytest.mark.slow(minutes=3)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pretrained_teacher_has_its_rows_in_the_servers_precision(tmp_path: Path, dtype: str):
    source = base_model_folder(Path(".cache"))
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32).eval()
    layers = [1, num_layers(model) // 2, num_layers(model)]
    tokenizer = AutoTokenizer.from_pretrained(source)
    texts = ["The capital of France is Paris. 12 + 30 = 42.", "To be, or not to be? " * 12]
    inputs = left_pad([tokenizer(text)["input_ids"] for text in texts], 0)
    # All but the first token of each is a response's.
    response = inputs["attention_mask"][:, 1:].bool() & inputs["attention_mask"][:, :-1].bool()
    views = Views((View.of_rollouts(**inputs, response=response, positions=response),))
    states = tmp_path / "states"
    with vllm_server(Path(source), states, layers, "--dtype", dtype) as url:
        reader = ServedReader.connect(source, Place(url, str(states), 60.0), nullcontext)
        found = reader.read(model, views, layers).states
    assert not list(states.iterdir())
    own, here = (
        Reader(teacher).read(model, views, layers).states
        for teacher in (model, AutoModelForCausalLM.from_pretrained(source, dtype=dtype).eval())
    )
    for layer in layers:
        assert found[layer].dtype == getattr(torch, dtype)
        theirs, ours = found[layer].double(), own[layer].double()
        error = ((theirs - ours).norm(dim=1) / ours.norm(dim=1)).max()
        turned = 1 - torch.cosine_similarity(theirs, ours, dim=1)
        if dtype == "float32":
            assert error < PARITY
            continue
        # Where large numbers of a row cancel, a few rows turn further, in Transformers as well.
        assert turned.quantile(0.95) < 1e-3
        rounded = 1 - torch.cosine_similarity(here[layer].double(), ours, dim=1)
        assert turned.max() < max(1e-3, 2 * rounded.max())


def test_the_embedding_is_layer_0_and_no_layer_is_another(teacher: Path, place: Place):
    server = StatesServer(place.teacher_server_url, Path(place.teacher_server_folder), 60.0)
    ids = rollouts().input_ids[2, 5:].tolist()
    (found,) = server.states([ids], [0, 1, 2, 3])
    model = AutoModelForCausalLM.from_pretrained(teacher).eval()
    with torch.no_grad():
        own = model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    for layer in range(3):
        errors = [(found[:, layer] - other[0]).norm() / other[0].norm() for other in own]
        assert errors[layer] < PARITY
        assert min(error for n, error in enumerate(errors) if n != layer) > 100 * PARITY


def test_many_sequences_at_once_come_in_their_order(place: Place):
    server = StatesServer(place.teacher_server_url, Path(place.teacher_server_folder), 60.0)
    sequences = [[n, *range(n + 1)] for n in range(1, 41)]
    together = server.states(sequences, [3])
    for ids, states in list(zip(sequences, together, strict=True))[::13]:
        (alone,) = server.states([ids], [3])
        torch.testing.assert_close(states, alone, atol=1e-4, rtol=1e-4)


def test_another_checkpoint_than_is_served_is_refused(place: Place, tmp_path: Path):
    other = save(tmp_path, 5, initializer_range=0.2)
    with pytest.raises(ValueError, match="which is not"):
        ServedReader.connect(str(other), place, nullcontext)


def test_a_sequence_that_is_too_long_is_refused_by_the_server(place: Place):
    server = StatesServer(place.teacher_server_url, Path(place.teacher_server_folder), 60.0)
    assert server.context == 256
    with pytest.raises(ValueError, match=r"refuses a request \(400\)"):
        server.states([[5] * 300], [1])


def test_a_run_is_that_with_the_same_teacher_here(teacher: Path, place: Place, tmp_path: Path):
    made = []
    there = {
        "teacher_source": "server",
        "teacher_server_url": place.teacher_server_url,
        "teacher_server_folder": place.teacher_server_folder,
    }
    for options in ({}, there):
        run = trainer(
            tmp_path / str(len(made)),
            teacher=None if options else str(teacher),
            student=tiny.model(seed=1, **WIDE),
            teacher_model_name_or_path=str(teacher),
            max_steps=2,
            **options,
        )
        run.train()
        made.append(run)
    assert largest_difference(*(weights(run.student) for run in made)) < 1e-5
    record = json.loads((tmp_path / "1" / "run.json").read_text())
    assert record["teacher"] == str(teacher)
