"""A teacher on a server reads what the same model reads here."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from oprd.core.capture import num_layers
from oprd.models.load import fingerprint
from oprd.models.reader import Reader
from oprd.models.reading import View
from oprd.models.views import Views
from oprd.serving import client
from oprd.serving.checkpoint import Checkpoint, final_norm, head_of, skeleton, weights_of
from oprd.serving.reader import ServedReader
from tests import tiny
from tests.serving.server import StandIn, serving


@dataclass
class Place:
    teacher_server_url: str
    teacher_server_folder: str
    teacher_server_timeout: float = 5.0
    teacher_model_revision: str | None = None


def saved(folder: Path, model, tokenizer=None) -> Path:
    model.save_pretrained(folder)
    (tokenizer or tiny.tokenizer()).save_pretrained(folder)
    return folder


@pytest.fixture
def served(tmp_path: Path, monkeypatch):
    """Connects to a stand-in that serves a model, as one whose checkpoint is another's."""
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    open_servers = []

    def connect(model, checkpoint=None, tokenizer=None) -> tuple[ServedReader, StandIn]:
        stand_in = StandIn(model, tokenizer or tiny.tokenizer(), tmp_path / "states")
        stand_in.folder.mkdir()
        server = serving(stand_in)
        open_servers.append(server)
        url = server.__enter__()
        source = saved(tmp_path / "checkpoint", model if checkpoint is None else checkpoint)
        return ServedReader.connect(str(source), Place(url, str(stand_in.folder)), nullcontext), (
            stand_in
        )

    yield connect
    for server in open_servers:
        server.__exit__(None, None, None)


def rollouts() -> View:
    """Three sequences: padded before and behind, one without a supervised row."""
    ids = torch.randint(0, 256, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = torch.ones(3, 12, dtype=torch.long)
    mask[0, :3], mask[1, 9:], mask[2, :5] = 0, 0, 0
    response = torch.zeros(3, 6, dtype=torch.bool)
    response[0], response[1, :3], response[2, :1] = True, True, True
    positions = response.clone()
    positions[0, :2], positions[2] = False, False
    return View.of_rollouts(ids, mask, response, positions)


# GPT-NeoX calls its head otherwise in its files.
@pytest.mark.parametrize("architecture", sorted({*tiny.ARCHITECTURES} - {"gpt_neox"}))
@pytest.mark.parametrize("last", [False, True])
def test_rows_are_those_that_the_model_has_here(served, architecture: str, last: bool):
    model = tiny.model(architecture, seed=3)
    reader, stand_in = served(model)
    layers = [1, 2, num_layers(model)]
    views = Views((rollouts(),))
    found = reader.read(model, views, layers, last=last)
    own = Reader(model).read(model, views, layers, last=last)
    for layer in layers:
        error = (found.states[layer] - own.states[layer]).norm(dim=1)
        assert (error / own.states[layer].norm(dim=1)).max() < 1e-5
    assert (found.last is None) == (own.last is None)
    if own.last is not None:
        torch.testing.assert_close(found.last, own.last, atol=1e-5, rtol=1e-5)
    assert not list(stand_in.folder.iterdir())


def test_only_what_is_looked_at_goes_out(served):
    reader, stand_in = served(tiny.model())
    stand_in.requests.clear()
    reader.read(tiny.model(), Views((rollouts(),)), [1])
    sent = {tuple(asked["prompt"]) for _, asked in stand_in.requests}
    view = rollouts()
    # Up to the last supervised row; the third sequence has none.
    assert sent == {tuple(view.input_ids[0, 3:11].tolist()), tuple(view.input_ids[1, :8].tolist())}
    assert all(
        asked["kv_transfer_params"]["hidden_states"]["layers"] == [1]
        for _, asked in stand_in.requests
    )


def test_rows_are_projected_as_they_arrive(served):
    reader, _ = served(tiny.model())
    shapes = []

    def project(layer, rows):
        shapes.append((layer, tuple(rows.shape), torch.is_grad_enabled()))
        return rows[:, :4]

    found = reader.read(tiny.model(), Views((rollouts(),)), [1, 2], transform=project)
    assert {layer: tuple(rows.shape) for layer, rows in found.states.items()} == {
        1: (7, 4),
        2: (7, 4),
    }
    assert sorted(shapes) == [(layer, (n, 32), False) for layer in (1, 2) for n in (3, 4)]


def test_a_view_in_which_nothing_counts_asks_for_nothing(served):
    reader, stand_in = served(tiny.model())
    stand_in.requests.clear()
    found = reader.read(tiny.model(), Views((rollouts().unsupervised(),)), [1, 3], last=True)
    assert [tuple(rows.shape) for rows in (*found.states.values(), found.last)] == [(0, 32)] * 3
    assert not stand_in.requests


def test_no_weight_of_the_teacher_is_here_but_what_is_known_of_it(served):
    model = tiny.model(seed=4)
    reader, _ = served(model)
    assert all(parameter.is_meta for parameter in reader.model.parameters())
    assert reader.weights == fingerprint(model)
    assert reader.stays and not reader.on_student
    torch.testing.assert_close(reader.head(model).weight, model.get_output_embeddings().weight)


def test_the_head_is_where_the_student_is(served):
    reader, _ = served(tiny.model())
    assert reader.head(tiny.model().to("meta")).weight.device.type == "meta"


def test_the_server_limits_what_the_teacher_reads(served):
    reader, _ = served(tiny.model(max_position_embeddings=512))
    assert reader.model.config.max_position_embeddings == 256


def test_half_precision_states_are_taken_as_they_come(served):
    model = tiny.model(seed=3)
    reader, _ = served(model.bfloat16(), checkpoint=tiny.model(seed=3))
    found = reader.read(model, Views((rollouts(),)), [1, 3]).states
    own = Reader(tiny.model(seed=3)).read(model, Views((rollouts(),)), [1, 3]).states
    for layer in (1, 3):
        assert found[layer].dtype == torch.bfloat16
        cosine = torch.cosine_similarity(found[layer].float(), own[layer], dim=1)
        assert (1 - cosine).max() < 1e-3


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"seed": 1}, "serves 'served', which is not .*other probabilities than it says"),
        ({"hidden_size": 64}, "keeps states of width 64, and .* has 32"),
        ({"num_hidden_layers": 4, "seed": 0}, "which is not"),
        ({"num_hidden_layers": 2}, r"keeps the states of layers \[0, 1, 2\], not \[3\]"),
    ],
)
def test_a_server_of_another_model_is_refused(served, other, message: str):
    with pytest.raises(ValueError, match=message):
        served(tiny.model(**other), checkpoint=tiny.model())


def test_a_server_of_another_tokenizer_is_refused(served):
    def reversed_tokens(text, add_special_tokens):
        return {"input_ids": tiny.tokenizer()(text)["input_ids"][::-1]}

    with pytest.raises(ValueError, match="reads a text as other tokens than the tokenizer of"):
        served(tiny.model(), tokenizer=reversed_tokens)


def test_a_norm_that_is_not_in_the_checkpoint_is_refused(tmp_path: Path):
    model = tiny.model()
    checkpoint = Checkpoint(str(saved(tmp_path, tiny.model(hidden_size=64))))
    with pytest.raises(OSError, match=r"model\.norm\.weight is \(64,\).*the teacher's is \(32,\)"):
        weights_of(final_norm(model), model, checkpoint)


def test_weights_of_other_names_are_refused_with_the_way_out(served):
    with pytest.raises(OSError, match=r"lm_head\.weight is missing in .*teacher_source='path'"):
        served(tiny.model("gpt_neox"))


def test_a_checkpoint_without_safetensors_is_refused(tmp_path: Path):
    with pytest.raises(OSError, match=r"holds neither model\.safetensors nor"):
        Checkpoint(str(tmp_path))


def test_a_checkpoint_in_shards_has_every_tensor(tmp_path: Path):
    model = tiny.model(seed=5)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    assert (tmp_path / "model.safetensors.index.json").is_file()
    checkpoint = Checkpoint(str(tmp_path))
    assert checkpoint.fingerprint(skeleton(str(tmp_path))) == fingerprint(model)


def test_tied_weights_are_found_by_the_name_that_is_there(tmp_path: Path):
    model = tiny.model(seed=5, tie_word_embeddings=True)
    model.save_pretrained(tmp_path)
    bare = skeleton(str(tmp_path))
    checkpoint = Checkpoint(str(tmp_path))
    assert checkpoint.fingerprint(bare) == fingerprint(model)
    weight = model.get_input_embeddings().weight
    torch.testing.assert_close(head_of(bare, checkpoint).weight, weight)
