"""A client of an inference server that keeps hidden states: token ids go out, states come back.

Standard library alone speaks HTTP here. What comes back over it is small; the states come through a
folder that server and run both see, see `oprd.serving.delivery`.

Letters: T tokens of a sequence, L layers, D width.
"""

import http.client
import json
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from oprd.runs.manifest import MANIFEST, problem, read_manifest
from oprd.serving.delivery import ASKED, FILE, LAYERS, NAME, PROBLEM, STATES, TOKENS
from oprd.text import parse_json, shortened

# Sequences that are asked for at once: the server makes batches of them.
AT_ONCE = 32
# A server that does not answer is asked so many times in all, after waits that double.
TRIES, FIRST_WAIT = 4, 1.0
# Between two looks whether a file is there.
LOOK = 0.01


class StatesServer:
    """A server of one model.

    Args:
        url: such as `http://127.0.0.1:8000`.
        folder: into which it writes, as this machine sees it.
        timeout: seconds that a request may take, and that its states may take after it.

    Attributes:
        name: of the model, by the server's word.
        root: where the server loaded it from, likewise; None where it does not say.
        context: the longest sequence that it reads; None where it does not say.

    Raises:
        ConnectionError: it does not answer.
        ValueError: what answers is no such server.
    """

    def __init__(self, url: str, folder: Path, timeout: float = 600.0) -> None:
        self.url, self.folder, self._timeout = url.rstrip("/"), folder, timeout
        if not folder.is_dir():
            raise ValueError(
                f"teacher_server_folder {str(folder)!r} is no folder here: the server makes it "
                "where it starts; name it as this machine sees it."
            )
        # Of the last requests: one that was asked twice may write once more when it has been read.
        self._recent: set[str] = set()
        listed = self._json("/v1/models").get("data")
        if not isinstance(listed, list) or not listed or not isinstance(listed[0], dict):
            raise ValueError(f"{self.url} serves no model: /v1/models lists none.")
        self.name, self.root = str(listed[0].get("id")), listed[0].get("root")
        context = listed[0].get("max_model_len")
        self.context = context if isinstance(context, int) else None

    def token_ids(self, text: str) -> list[int]:
        """Text as the server's tokenizer reads it, without special tokens."""
        asked = {"model": self.name, "prompt": text, "add_special_tokens": False}
        found = self._json("/tokenize", asked).get("tokens")
        if not isinstance(found, list):
            raise ValueError(f"{self.url}/tokenize gives no tokens: is it a server of vLLM's?")
        return found

    def states(
        self,
        sequences: Sequence[Sequence[int]],
        layers: Sequence[int],
        arrived: Callable[[int, Tensor], Any] = lambda _, states: states,
    ) -> list[Any]:
        """States of sequences, in their order.

        Args:
            sequences: token ids, at least one each.
            layers: which, by this package's numbers; the last one is before the final norm.
            arrived: makes of a sequence's number and states [T, L, D] what is kept of them.

        Raises:
            ConnectionError: the server does not answer, or its states do not come.
            ValueError: they are not the states that were asked for.
            FloatingPointError: they are not finite.
        """
        while self._recent:
            _delete(self.folder / self._recent.pop())

        def one(number: int) -> Any:
            found, _ = self.complete(sequences[number], layers)
            return arrived(number, found)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            futures = [threads.submit(one, number) for number in range(len(sequences))]
            try:
                return [future.result() for future in futures]
            except BaseException:
                # One that fails stops the run: what has not begun need not.
                threads.shutdown(wait=False, cancel_futures=True)
                raise

    def complete(
        self,
        ids: Sequence[int],
        layers: Sequence[int],
        within: float | None = None,
        **options: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """States [T, L, D] of one sequence, and what the server says with them.

        Args:
            ids: T token ids.
            layers: L of them.
            within: seconds for the states to come after the answer, where the timeout is longer.
            options: further parameters of the request.
        """
        name = secrets.token_hex(16)
        asked_for = {NAME: name, LAYERS: list(layers)}
        asked = {
            "model": self.name,
            "prompt": list(ids),
            "max_tokens": 1,
            "temperature": 0,
            "kv_transfer_params": {ASKED: asked_for},
            **options,
        }
        self._recent.add(name)
        try:
            said = self._json("/v1/completions", asked)
            given = said.get("kv_transfer_params")
            if not isinstance(given, dict) or given.get(ASKED) != asked_for:
                raise ValueError(
                    f"{self.url} answers, and says nothing of states: start it with this version's "
                    "oprd.serving.connector for its KV connector (--kv-transfer-config)."
                )
            wait = min(self._timeout, within or self._timeout)
            found = self._take(name, ids, layers, wait)
        finally:
            _delete(self.folder / name)
        if (self.folder / name).exists():
            raise ValueError(
                f"{self.folder / name} has been read and cannot be deleted, so that the server "
                "would fill the folder: run and server must both be allowed to write into it."
            )
        return found, said

    def _take(self, name: str, ids: Sequence[int], layers: Sequence[int], wait: float) -> Tensor:
        """Wait for an answer's states, check them and delete their files."""
        folder, started = self.folder / name, time.monotonic()
        while (manifest := self._manifest(folder)) is None:
            if time.monotonic() - started > wait:
                raise ConnectionError(
                    f"{self.url} answered, and no states came to {folder} in {wait:g} seconds: "
                    "does teacher_server_folder name the folder that its connector "
                    "writes to, and what does its log say?"
                )
            time.sleep(LOOK)
        if (why := manifest.get(PROBLEM)) is not None:
            raise ValueError(f"{self.url} gives no states: {why}.")
        if (damage := problem(folder)) is not None:
            raise ValueError(f"the states in {folder} are damaged: {damage}.")
        try:
            found = load_file(folder / FILE)
        except (OSError, SafetensorError) as error:
            raise ValueError(f"the states in {folder} cannot be read: {error}.") from error
        return _checked(found, manifest, ids, layers, self.url)

    def _manifest(self, folder: Path) -> dict[str, Any] | None:
        try:
            return read_manifest(folder)
        except ValueError as error:
            raise ValueError(f"the states in {folder} are damaged: {error}.") from error
        except OSError as error:
            raise ValueError(f"the states in {folder} cannot be read: {error}.") from error

    def _json(self, path: str, asked: dict[str, Any] | None = None) -> dict[str, Any]:
        """What the server answers; asked again where it does not."""
        body = None if asked is None else json.dumps(asked).encode()
        request = urllib.request.Request(
            self.url + path, body, {"Content-Type": "application/json"} if body else {}
        )
        found = self._answer(request)
        if not isinstance(found, dict):
            raise ValueError(f"{self.url}{path} answers with no JSON object: is it vLLM's server?")
        return found

    def _answer(self, request: urllib.request.Request) -> Any:
        wait = FIRST_WAIT
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                    return parse_json(answer.read())
            except urllib.error.HTTPError as error:
                said = shortened(error.read().decode(errors="replace"), 300)
                if error.code < 500 or not left:
                    raise ValueError(
                        f"{request.full_url} refuses a request ({error.code}): {said}"
                    ) from error
            except (OSError, http.client.HTTPException, ValueError) as error:
                # It has been waited for long enough; one that hangs in connecting is wrapped.
                if isinstance(getattr(error, "reason", error), TimeoutError):
                    raise ConnectionError(
                        f"the server at {self.url} does not answer in {self._timeout:g} seconds."
                    ) from error
                if not left:
                    raise ConnectionError(
                        f"the server at {self.url} does not answer after {TRIES} tries: {error}."
                    ) from error
            time.sleep(wait)
            wait *= 2
        raise AssertionError("the last try has returned or raised")


def _checked(
    found: dict[str, Tensor],
    manifest: dict[str, Any],
    ids: Sequence[int],
    layers: Sequence[int],
    url: str,
) -> Tensor:
    """States [T, L, D] that are those of these tokens and layers, and finite."""
    states, tokens = found.get(STATES), found.get(TOKENS)
    if states is None or tokens is None or manifest.get(LAYERS) != list(layers):
        raise ValueError(
            f"{url} wrote {sorted(found)} of layers {manifest.get(LAYERS)}: asked for were "
            f"{STATES} and {TOKENS} of layers {list(layers)}."
        )
    if len(tokens) < len(ids):
        raise ValueError(
            f"{url} read {len(tokens)} of {len(ids)} tokens: let it read longer sequences "
            "(--max-model-len), and cut none."
        )
    if tokens.tolist() != list(ids):
        raise ValueError(f"{url} wrote states of other tokens than it was asked for.")
    if states.ndim != 3 or states.shape[:2] != (len(ids), len(layers)):
        raise ValueError(
            f"{url} wrote states of shape {tuple(states.shape)} for {len(ids)} tokens and "
            f"{len(layers)} layers."
        )
    if not states.is_floating_point():
        raise ValueError(f"{url} wrote states of {states.dtype}, no floats.")
    if not _finite(states):
        broken = [n for n, own in zip(layers, states.unbind(1), strict=True) if not _finite(own)]
        raise FloatingPointError(f"{url} wrote states of layers {broken} that are not finite.")
    return states


def _delete(folder: Path) -> None:
    """What there is of an answer; while it is written, something may stay."""
    with suppress(OSError):
        for name in (FILE, MANIFEST):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def _finite(states: Tensor) -> bool:
    return bool(torch.isfinite(states).all())
