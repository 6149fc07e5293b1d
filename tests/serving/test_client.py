"""The client of a server's states, and what a server can do wrong."""

import json
import socketserver
import threading
import time
import urllib.error
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from oprd.runs.manifest import MANIFEST, manifest_text
from oprd.serving import client
from oprd.serving.client import StatesServer
from oprd.serving.delivery import FILE
from tests import tiny
from tests.serving.server import StandIn, serving

IDS = [5, 80, 33, 200, 4]


@pytest.fixture
def stand_in(tmp_path: Path) -> StandIn:
    return StandIn(tiny.model(), tiny.tokenizer(), tmp_path)


@pytest.fixture
def server(stand_in: StandIn, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    with serving(stand_in) as url:
        yield StatesServer(url, tmp_path, timeout=5.0)


def test_states_are_those_of_the_layers_that_are_asked_for_and_leave_no_file(
    server: StatesServer, stand_in: StandIn, tmp_path: Path
):
    sequences = [IDS, IDS[:2], IDS[::-1]]
    found = server.states(sequences, [2, 0])
    for ids, states in zip(sequences, found, strict=True):
        with torch.no_grad():
            own = stand_in.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
        torch.testing.assert_close(states, torch.stack([own[2][0], own[0][0]], dim=1))
    assert not list(tmp_path.iterdir())
    assert (server.name, server.context) == ("served", 256)


def test_what_is_kept_of_a_sequence_is_made_as_it_arrives(server: StatesServer):
    kept = server.states([IDS, IDS[:3]], [1], lambda number, states: (number, states.shape))
    assert kept == [(0, (5, 1, 32)), (1, (3, 1, 32))]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda states: states[:-1], r"states of shape \(4, 2, 32\) for 5 tokens and 2 layers"),
        (lambda states: states[:, :1], r"states of shape \(5, 1, 32\) for 5 tokens and 2 layers"),
        (lambda states: states[:, 0], r"states of shape \(5, 32\)"),
        (lambda states: states.int(), "states of torch.int32, no floats"),
    ],
)
def test_states_of_another_shape_or_kind_are_refused(
    server: StatesServer, stand_in: StandIn, change, message: str
):
    stand_in.states = change
    with pytest.raises(ValueError, match=message):
        server.states([IDS], [1, 2])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_stop_the_run_by_layer(
    server: StatesServer, stand_in: StandIn, value: float
):
    def broken(states):
        states[3, 1, 7] = value
        return states

    stand_in.states = broken
    with pytest.raises(FloatingPointError, match=r"states of layers \[2\] that are not finite"):
        server.states([IDS], [1, 2])


def test_a_server_that_cuts_a_sequence_or_reads_another_is_refused(
    server: StatesServer, stand_in: StandIn
):
    stand_in.ids = lambda ids: ids[2:]
    with pytest.raises(ValueError, match="read 3 of 5 tokens: let it read longer sequences"):
        server.states([IDS], [1])
    stand_in.ids = lambda ids: ids[::-1]
    with pytest.raises(ValueError, match="states of other tokens than it was asked for"):
        server.states([IDS], [1])


def of_earlier(folder: Path) -> None:
    """A file of another request, with a manifest that fits it."""
    found = load_file(folder / FILE)
    save_file({**found, "token_ids": found["token_ids"] + 1}, folder / FILE)


def cut(folder: Path) -> None:
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content[:-8])


def altered(folder: Path) -> None:
    content = bytearray((folder / FILE).read_bytes())
    content[-5] ^= 1
    (folder / FILE).write_bytes(content)


def no_json(folder: Path) -> None:
    (folder / MANIFEST).write_text("{")


def other_layers(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest.pop("sha256")
    (folder / MANIFEST).write_text(manifest_text({**manifest, "layers": [3]}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (of_earlier, "damaged: its states.safetensors has been altered"),
        (cut, "bytes in the place of"),
        (altered, "has been altered"),
        (no_json, "its manifest.json is damaged"),
        (other_layers, r"of layers \[3\]: asked for were hidden_states and token_ids of layers"),
    ],
)
def test_a_file_that_is_not_what_was_written_for_this_request_is_refused(
    server: StatesServer, stand_in: StandIn, damage, message: str
):
    stand_in.damage = damage
    with pytest.raises(ValueError, match=message):
        server.states([IDS], [1])


def test_a_server_without_the_layers_says_which_it_keeps(server: StatesServer, stand_in: StandIn):
    stand_in.layers = range(1, 3)
    with pytest.raises(ValueError, match=r"keeps the states of layers \[1, 2\], not \[3\]"):
        server.states([IDS], [3])


def test_a_server_that_stumbles_is_asked_again(server: StatesServer, stand_in: StandIn):
    left = [503, 500]
    stand_in.fault = lambda path, asked: (left.pop(), b"busy") if left else None
    assert server.states([IDS], [1])[0].shape == (5, 1, 32)
    # Which models there are, and three tries.
    assert len(stand_in.requests) == 4


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        ((400, {"message": "too long"}), ValueError, r"refuses a request \(400\): .*too long"),
        ((503, b"down"), ValueError, r"refuses a request \(503\): down"),
        ((200, b"<html>"), ConnectionError, "does not answer after 4 tries"),
        ((200, [1]), ValueError, "answers with no JSON object"),
    ],
)
def test_a_server_that_keeps_refusing_stops_the_run(
    server: StatesServer, stand_in: StandIn, answer, kind, message: str
):
    stand_in.fault = lambda path, asked: answer
    with pytest.raises(kind, match=message):
        server.states([IDS], [1])


def test_a_dead_server_is_one_sentence(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    with serving(StandIn(tiny.model(), tiny.tokenizer(), tmp_path)) as url:
        pass
    with pytest.raises(ConnectionError, match=rf"server at {url} does not answer after 4 tries"):
        StatesServer(url, tmp_path, timeout=5.0)


def test_a_server_that_hangs_stops_the_run_in_time(stand_in: StandIn, tmp_path: Path, monkeypatch):
    with serving(stand_in) as url:
        server = StatesServer(url, tmp_path)
        server._timeout = 0.2
        stand_in.fault = lambda path, asked: time.sleep(0.6)
        started = time.monotonic()
        with pytest.raises(ConnectionError, match=r"does not answer in 0\.2 seconds"):
            server.states([IDS], [1])
        assert time.monotonic() - started < 5


def test_states_that_never_come_stop_the_run(stand_in: StandIn, tmp_path: Path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stand_in.folder = elsewhere
    with serving(stand_in) as url:
        server = StatesServer(url, tmp_path, timeout=0.3)
        message = r"no states came to .* in {} seconds: does teacher_server_folder"
        with pytest.raises(ConnectionError, match=message.format("0.3")):
            server.states([IDS], [1])
        with pytest.raises(ConnectionError, match=message.format("0.1")):
            server.complete(IDS, [1], within=0.1)


def test_a_folder_that_is_not_here_is_refused_before_anything_is_asked(tmp_path: Path):
    with pytest.raises(ValueError, match=r"teacher_server_folder .*/seen' is no folder here"):
        StatesServer("http://127.0.0.1:1", tmp_path / "seen")


@pytest.mark.parametrize("said", [None, {}, {"hidden_states": {"name": "0" * 32, "layers": [1]}}])
def test_a_server_without_the_connector_is_refused_at_once(
    server: StatesServer, stand_in: StandIn, said
):
    stand_in.says = lambda given: said
    started = time.monotonic()
    with pytest.raises(ValueError, match=r"says nothing of states: .*oprd\.serving\.connector"):
        server.states([IDS], [1])
    assert time.monotonic() - started < 4


def test_states_that_were_asked_for_twice_and_come_again_are_deleted(
    server: StatesServer, stand_in: StandIn, tmp_path: Path
):
    server.states([IDS], [1])
    _, asked = stand_in.requests[-1]
    stand_in.answer("/v1/completions", asked)
    assert list(tmp_path.iterdir())
    server.states([IDS], [1])
    assert not list(tmp_path.iterdir())


def test_a_folder_in_which_nothing_can_be_deleted_stops_the_run(
    server: StatesServer, stand_in: StandIn, tmp_path: Path
):
    # As it is where the server's user alone may write into what it made.
    stand_in.damage = lambda folder: (folder / "kept").touch()
    with pytest.raises(ValueError, match="has been read and cannot be deleted, so that the server"):
        server.states([IDS], [1])


def test_a_manifest_that_cannot_be_read_is_one_sentence(server: StatesServer, stand_in: StandIn):
    def unreadable(folder: Path) -> None:
        (folder / MANIFEST).unlink()
        (folder / MANIFEST).mkdir()

    stand_in.damage = unreadable
    with pytest.raises(ValueError, match=r"the states in .* cannot be read: .*Is a directory"):
        server.states([IDS], [1])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{", r"IncompleteRead\(1 bytes read"),
        (b"no HTTP\r\n\r\n", "no HTTP"),
        (b"", "closed connection without response"),
    ],
)
def test_an_answer_that_breaks_off_is_asked_for_again(
    tmp_path: Path, monkeypatch, answer: bytes, message: str
):
    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    heard = []

    class Breaking(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            heard.append(self.request.recv(4096))
            self.request.sendall(answer)

    with socketserver.TCPServer(("127.0.0.1", 0), Breaking) as breaking:
        thread = threading.Thread(target=breaking.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with pytest.raises(ConnectionError, match=f"answer after 4 tries: .*{message}"):
                StatesServer(f"http://127.0.0.1:{breaking.server_address[1]}", tmp_path, timeout=5)
        finally:
            breaking.shutdown()
            thread.join()
    assert len(heard) == 4


def test_a_server_that_cannot_be_connected_to_is_not_waited_for_four_times(
    stand_in: StandIn, tmp_path: Path, monkeypatch
):
    tried = []

    def hangs(*_, timeout):
        tried.append(timeout)
        raise urllib.error.URLError(TimeoutError("timed out"))

    monkeypatch.setattr(client.urllib.request, "urlopen", hangs)
    with pytest.raises(ConnectionError, match="does not answer in 5 seconds"):
        StatesServer("http://127.0.0.1:1", tmp_path, timeout=5.0)
    assert tried == [5.0]


def test_a_server_of_no_model_is_refused(stand_in: StandIn, tmp_path: Path):
    stand_in.fault = lambda path, asked: (200, {"data": []})
    with serving(stand_in) as url, pytest.raises(ValueError, match="serves no model"):
        StatesServer(url, tmp_path)
