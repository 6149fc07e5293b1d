"""A stand-in for vLLM's server: a tiny model behind its paths, which writes states as ours does.

What it answers and how it delivers was recorded of vLLM 0.31.0 with `oprd.serving.connector`; the
same client is tested with that itself in `tests/engines/test_serving.py`.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oprd.serving.checkpoint import final_norm
from oprd.serving.delivery import asked_of, deliver, refuse

Change = Callable[[Tensor], Tensor]


class StandIn:
    """What a server does, and what it does wrong.

    Args:
        model: that it serves.
        tokenizer: likewise.
        folder: into which it writes.

    Attributes:
        layers: that it keeps.
        context: the longest sequence that it reads.
        fault: called with a request in the place of an answer where it is set; it returns a status
            and a body, or None to go on.
        states: changes states [T, L, D] before they are written.
        ids: changes token ids before they are read.
        damage: called with a folder that has been written.
        says: what it answers beside the text, made of what it was asked there.
        requests: all that were asked for, by path.
    """

    def __init__(self, model: Any, tokenizer: Any, folder: Path) -> None:
        self.model, self.tokenizer, self.folder = model, tokenizer, folder
        self.layers = range(model.config.num_hidden_layers + 1)
        self.context = 256
        self.fault: Callable[[str, dict[str, Any]], tuple[int, Any] | None] | None = None
        self.states: Change = lambda states: states
        self.ids: Callable[[list[int]], list[int]] = lambda ids: ids
        self.damage: Callable[[Path], None] = lambda folder: None
        self.says: Callable[[dict[str, Any]], Any] = lambda given: given
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._one = threading.Lock()

    def answer(self, path: str, asked: dict[str, Any]) -> tuple[int, Any]:
        self.requests.append((path, asked))
        if self.fault is not None and (found := self.fault(path, asked)) is not None:
            return found
        match path:
            case "/v1/models":
                listed = {"id": "served", "root": "served", "max_model_len": self.context}
                return 200, {"object": "list", "data": [listed]}
            case "/tokenize":
                ids = self.tokenizer(asked["prompt"], add_special_tokens=False)["input_ids"]
                return 200, {"count": len(ids), "tokens": list(ids)}
            case "/v1/completions":
                return 200, self._complete(asked)
        return 404, {"detail": "Not Found"}

    def _complete(self, asked: dict[str, Any]) -> dict[str, Any]:
        given = asked["kv_transfer_params"]
        name, layers = asked_of(given)  # pyright: ignore
        ids = self.ids(list(asked["prompt"]))
        before: list[Tensor] = []
        norm = final_norm(self.model)
        with self._one, torch.no_grad():
            hook = norm.register_forward_pre_hook(lambda _, args: before.append(args[0]))
            found = self.model(torch.tensor([ids]), output_hidden_states=True)
            hook.remove()
        # The last of them is after the norm.
        hidden = [*found.hidden_states[:-1], before[0]]
        if missing := sorted(set(layers) - set(self.layers)):
            why = f"it keeps the states of layers {list(self.layers)}, not {missing}"
            refuse(self.folder / name, why)
        else:
            states = torch.stack([hidden[layer][0] for layer in layers], dim=1)
            deliver(self.folder / name, self.states(states), torch.tensor(ids), layers, "served")
            self.damage(self.folder / name)
        top = found.logits[0, -1].float().log_softmax(0).topk(asked.get("logprobs", 1))
        likely = dict(zip((f"token_id:{t}" for t in top.indices), top.values.tolist(), strict=True))
        choice = {"text": "", "logprobs": {"top_logprobs": [likely]}, "finish_reason": "length"}
        return {"choices": [choice], "kv_transfer_params": self.says(given)}


@contextmanager
def serving(stand_in: StandIn) -> Iterator[str]:
    """The URL at which it answers, on this machine alone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*stand_in.answer(self.path, {}))

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(*stand_in.answer(self.path, json.loads(body)))

        def _send(self, status: int, body: Any) -> None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            # Who asked may be gone.
            with suppress(OSError):
                self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
