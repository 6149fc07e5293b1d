"""One process's part of a measurement; run in several by test_distributed."""

import json
import os
from pathlib import Path

from accelerate import PartialState

from oprd.calibration.similarity import measure_similarity
from tests import tiny
from tests.calibration.pairs import rollouts, student, teacher


def main(folder: str) -> None:
    state = PartialState(cpu=True)
    # What others would find is not what counts.
    frozen = teacher() if state.is_main_process else tiny.model(seed=9, num_hidden_layers=4)
    found = measure_similarity(student(), frozen, rollouts(), "all", 1, progress=False)
    broken = teacher().requires_grad_(not state.is_main_process)
    if state.is_main_process:
        broken.base_model.norm.weight.fill_(float("nan"))
    try:
        measure_similarity(student(), broken, rollouts(), "all", 1, progress=False)
        error = None
    except FloatingPointError as raised:
        error = str(raised)
    result = {"similarity": found.tolist(), "error": error}
    (Path(folder) / f"similarity-{os.environ['RANK']}.json").write_text(json.dumps(result))
