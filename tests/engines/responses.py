"""vLLM as an engine of `oprd eval`, beside Transformers: greedy, sampled, and where they stop."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import vllm

from oprd.models.generate import Request
from oprd.models.load import open_engine
from oprd.models.sampling import Sampling
from tests.engines import process
from tests.engines.models import LONG, PROMPTS

DRAWS = 3000


def main(folder: str, shapings: str) -> dict[str, Any]:
    """Ask both engines for the same.

    Args:
        folder: of a model.
        shapings: JSON of settings of `Sampling`, each drawn from with both.

    Returns:
        by engine: the texts of an evaluation through the command, what it wrote greedily after
        `PROMPTS`, and the first tokens that it drew by shaping.
    """
    make, made = partial(vllm.LLM, enforce_eager=True), []

    def once(**given: Any) -> Any:
        """The engine of the command, once more."""
        made.extend([] if made else [make(**given)])
        return made[0]

    vllm.LLM = once  # pyright: ignore[reportAttributeAccessIssue]
    return {
        name: {
            "command": command(name, folder),
            "greedy": greedy(name, folder),
            "drawn": [drawn(name, folder, shaping) for shaping in json.loads(shapings)],
        }
        for name in ("vllm", "transformers")
    }


def command(engine: str, folder: str) -> list[list[str]]:
    out = Path(folder) / f"out-{engine}"
    given = {
        "model": folder,
        "tasks": "arithmetic",
        "engine": engine,
        "dtype": "float32",
        "limit": 12,
        "samples": 1,
        "temperature": 0,
        "max_new_tokens": 16,
        "output_dir": out,
    }
    assert process.command("eval", *process.flags(given)) == 0
    (file,) = out.rglob("*.jsonl")
    records = [json.loads(line) for line in file.read_text().splitlines()[1:]]
    return sorted([r["problem"], r["text"], r["finish_reason"]] for r in records)


def greedy(engine: str, folder: str) -> list[list[Any]]:
    opened, _ = open_engine(folder, engine=engine, dtype="float32")
    requests = [Request(str(n), 0, tuple(ids), n) for n, ids in enumerate(PROMPTS)]
    sampling = Sampling(1, temperature=0.0, max_new_tokens=12)
    found = [r for batch in opened.generate(requests, sampling) for r in batch]
    return sorted([r.request.problem, r.ids, r.text, r.finish_reason] for r in found)


def drawn(engine: str, folder: str, shaping: dict[str, Any]) -> list[int]:
    """The first tokens of many draws after `LONG`."""
    opened, _ = open_engine(folder, engine=engine, dtype="float32", batch_size=500)
    sampling = Sampling(DRAWS, max_new_tokens=1, **shaping)
    seeds = [sampling.pair_seed("drawn", "p", n) for n in range(DRAWS)]
    requests = [Request("p", n, tuple(LONG), seed) for n, seed in enumerate(seeds)]
    return [r.ids[0] for batch in opened.generate(requests, sampling) for r in batch]
