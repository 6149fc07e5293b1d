"""A server of vLLM's, with the connector of this package or without, on this machine alone."""

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.engines.process import SECONDS, environment, free_port


@contextmanager
def vllm_server(model: Path, states: Path, layers: Sequence[int], *flags: str) -> Iterator[str]:
    """The URL of one that serves a model and its states; ended after the block."""
    speculative: dict[str, Any] = {
        "method": "extract_hidden_states",
        "num_speculative_tokens": 1,
        "draft_model_config": {"hf_config": {"eagle_aux_hidden_state_layer_ids": [*layers]}},
    }
    transfer = {
        "kv_connector": "StatesConnector",
        "kv_role": "kv_producer",
        "kv_connector_module_path": "oprd.serving.connector",
        "kv_connector_extra_config": {"folder": str(states)},
    }
    flags = ("--speculative-config", json.dumps(speculative), *flags)
    flags = ("--kv-transfer-config", json.dumps(transfer), *flags)
    with plain_server(model, states.parent / "server.log", *flags) as url:
        yield url


@contextmanager
def plain_server(model: Path, log: Path, *flags: str) -> Iterator[str]:
    """The URL of one that serves a model; ended after the block."""
    port = free_port()
    command = [
        # The build for a CPU has not the name that `vllm serve` asks for its version.
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--enforce-eager"),
        *("--max-model-len", "256", *flags),
    ]
    # One that this process starts has no rank among others.
    env = {k: v for k, v in environment().items() if k not in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
    with log.open("wb") as said:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, env=env
        )
        try:
            _wait(server, f"http://127.0.0.1:{port}", log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(60)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    started = time.monotonic()
    while time.monotonic() - started < SECONDS:
        assert server.poll() is None, log.read_text(errors="replace")[-6000:]
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(1)
    raise AssertionError(f"no server came up:\n{log.read_text(errors='replace')[-6000:]}")
