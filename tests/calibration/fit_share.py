"""One process's part of a fit; run in one and in two by test_distributed."""

import json
from pathlib import Path

from accelerate import PartialState

from oprd.calibration.bridge.fit import fit_bridge
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.rollouts import RenderedPrompt, collect_rollouts
from oprd.models.generate import TransformersEngine
from oprd.models.sampling import Sampling
from tests import tiny
from tests.calibration.pairs import student, teacher


def main(folder: str) -> None:
    state = PartialState(cpu=True)
    model, tokenizer = student(), tiny.tokenizer()
    prompts = [RenderedPrompt(t, tokenizer(t)["input_ids"]) for t in (f"{n}+1=" for n in range(9))]
    sampling = Sampling(1, 1.0, 1.0, 6)
    engine = TransformersEngine(model, tokenizer, batch_size=1)
    found = collect_rollouts(engine, prompts, sampling, {}, Path(folder), progress=False)
    settings = FitSettings(rank=3, positions="all", batch_size=2, ridge=0.1)
    fitted = fit_bridge(model, teacher(), found, settings, folder=Path(folder), progress=False)
    name = f"{state.process_index}-of-{state.num_processes}"
    fitted.bridge.save(Path(folder) / f"{name}.safetensors")
    (Path(folder) / f"{name}.json").write_text(json.dumps(fitted.report))
