"""What has an engine in it runs in a process of its own: vLLM sets up a process for good.

    found = in_process("engines.colocate", folder, "lora")

calls `main` of that module of the tests there, and gives what it returns.
"""

import importlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

SECONDS = 1500
HERE = Path(__file__).parents[2]

needs_vllm = [
    pytest.mark.vllm,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None,
        reason="vLLM is not installed: make test-vllm has it",
    ),
]


def free_port() -> int:
    """Of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def environment() -> dict[str, str]:
    """Of a process with vLLM on a CPU, which asks for little of the machine."""
    one_process = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    vllm = {
        "VLLM_CPU_KVCACHE_SPACE": 1,
        # Its own threads stay where this process may run.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": 1,
        "HF_HUB_OFFLINE": 1,
        "ACCELERATE_USE_CPU": 1,
        "PYTHONPATH": f"{HERE / 'src'}{os.pathsep}{HERE}",
    }
    return {**os.environ, **{k: str(v) for k, v in (one_process | place | vllm).items()}}


def in_process(module: str, *arguments: object) -> Any:
    """What `main` of a module of the tests returns, of JSON's kinds."""
    with tempfile.TemporaryDirectory() as folder:
        out, log = Path(folder, "out.json"), Path(folder, "log.txt")
        with log.open("wb") as said:
            ended = subprocess.run(
                [sys.executable, "-m", "tests.engines.process", out, module, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=environment(),
                timeout=SECONDS,
                cwd=HERE,
                check=False,
            )
        text = log.read_text(errors="replace")
        assert ended.returncode == 0 and out.exists(), f"{module} ended early:\n{text[-6000:]}"
        return json.loads(out.read_text())


def command(*arguments: object) -> int:
    """The exit status of `oprd`, in this process: vLLM wants standard output to be a file."""
    from oprd.cli.main import app

    with pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as a command line."""
    return [text for name, value in settings.items() for text in (f"--{name}", str(value))]


if __name__ == "__main__":
    place, name, *given = sys.argv[1:]
    Path(place).write_text(json.dumps(importlib.import_module(f"tests.{name}").main(*given)))
