"""An inspection from the loaded models to the advice."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from datasets import Dataset

from oprd.analysis.inspection.advice import Advice, advise
from oprd.analysis.inspection.asked import Asked
from oprd.analysis.inspection.facts import Facts
from oprd.analysis.inspection.measure import check_pair, measure_pair
from oprd.analysis.inspection.recipe import first_run, recipe
from oprd.analysis.inspection.tokens import stop_tokens
from oprd.analysis.machine import machine
from oprd.calibration.bridge.heads import Common
from oprd.calibration.models import FitModels, first_prompts
from oprd.calibration.rollouts import Rollout
from oprd.core.capture import num_layers
from oprd.core.layers import select_layers
from oprd.core.objective import OUTPUT_LOSSES, make_loss
from oprd.models.counting import bytes_of, loaded_in, tensors
from oprd.models.distributions import Distributions
from oprd.models.matching import paired_layers
from oprd.models.memory import Estimate, Sizes, estimate, free_bytes, told
from oprd.runs.progress import progress_bar
from oprd.runs.record import versions
from oprd.settings.run import AUTO
from oprd.stopwatch import Stopwatch

FORMAT = 1
JSON_FILE, PICTURE, RECIPE, RUN = "inspect.json", "inspect.png", "train.yaml", "run"


def inspect_models(
    models: FitModels,
    prompts: Dataset,
    asked: Asked,
    tokens: dict[str, Any],
    folder: Path,
    *,
    progress: bool = True,
) -> dict[str, Any]:
    """Let the student write rollouts, measure both models on them, and advise.

    Args:
        models: the pair.
        prompts: what the student answers, or the first of them; see `Asked.load_prompts`.
        asked: how it is looked at.
        tokens: of `compare_tokenizers`.
        folder: where rollouts are written, or are already.
        progress: whether to show progress bars.

    Returns:
        The report, as JSON can hold it.

    Raises:
        ValueError: the two cannot be compared, or there is too little to go by.
        FloatingPointError: a state is not finite; the message names its prompt.
    """
    if (processes := PartialState().num_processes) > 1:
        raise ValueError(
            f"an inspection is one process's work, and these are {processes}: run it alone."
        )
    student, teacher = models.student, models.teacher
    paired_layers(student, teacher, asked.settings.layers, asked.settings.layer_pairing)
    watch, looked_at = Stopwatch(student.device), first_prompts(prompts, asked.max_prompts)
    seen = check_pair(student, teacher)
    stops = {
        "student": stop_tokens(student, models.tokenizer),
        "teacher": stop_tokens(teacher, models.teacher_tokenizer or models.tokenizer),
    }
    with watch("rollouts"):
        rollouts, drawn = models.write_rollouts(
            looked_at,
            asked.sampling,
            folder,
            drop=asked.long_prompts == "drop",
            batch_size=asked.settings.batch_size,
            template_options=asked.template_options,
            progress=progress,
        )
    with watch("measuring"), progress_bar(progress) as bar:
        shown = bar.add_task("reading", total=len(rollouts))
        figures = measure_pair(
            student,
            teacher,
            seen,
            rollouts,
            asked.settings,
            lambda n: bar.advance(shown, n),
            teach=models.teach,
            common=models.common,
        )
    facts = Facts.of(
        figures,
        layers=_layers_text(asked.settings.layers),
        positions=asked.settings.positions,
        position_k=asked.settings.position_k,
        limit=asked.sampling.max_new_tokens,
    )
    advice = advise(facts)
    # Of those that were not looked at nobody knows whether they are dropped.
    there = len(rollouts) if asked.long_prompts == "drop" else len(prompts)
    need = _need(models, asked, advice, rollouts, first_run(there))
    return {
        "format": FORMAT,
        "asked": asked.facts(),
        "models": figures.pop("models"),
        "provenance": {**models.provenance, "rollouts": drawn},
        "tokens": {**tokens, "stops": stops},
        **figures,
        "advice": {
            "method": advice.method,
            "settings": advice.settings,
            "reasons": [list(reason) for reason in advice.reasons],
        },
        "recipe": recipe(advice, asked.training(folder / RUN), there),
        "memory": {"bytes": asdict(need), "said": told(need, _free(models, need))[0]},
        "seconds": watch.take(),
        "machine": machine(),
        "versions": versions(),
    }


def _need(
    models: FitModels,
    asked: Asked,
    advice: Advice,
    rollouts: Sequence[Rollout],
    run: Mapping[str, Any],
) -> Estimate:
    """What the advised run holds at most, by the defaults of `oprd train` where it says nothing."""
    student, teacher = models.student, models.teacher
    if asked.dtype is None:
        student, teacher = loaded_in(torch.float32, student, teacher)
    accelerated = torch.accelerator.is_available()
    batch, micro_batches = run["per_device_train_batch_size"], run["gradient_accumulation_steps"]
    return estimate(
        student,
        [teacher],
        Sizes(
            batch=batch,
            rollouts=batch * micro_batches,
            prompt=max(len(rollout.prompt_ids) for rollout in rollouts),
            response=asked.sampling.max_new_tokens,
            layers=select_layers(asked.settings.layers, num_layers(student)),
            distributions=_distributions(advice.settings, models.common),
            checkpointing={},
            accumulates=micro_batches > 1,
        ),
        whole=True,
        autocast=partial(torch.autocast, student.device.type, torch.bfloat16, enabled=accelerated),
        searches=advice.settings["learning_rate"] == AUTO,
    )


def _free(models: FitModels, need: Estimate) -> int:
    """What is left beside the run's models, which may be larger than these."""
    both = models.student, models.teacher
    loaded = bytes_of(tensor for model in both for tensor in tensors(model))
    return max(free_bytes(models.student.device) + loaded - need.weights, 0)


def _distributions(settings: Mapping[str, Any], common: Common) -> Distributions | None:
    """What a run with the advised settings compares of next-token distributions."""
    if "output_loss" not in settings:
        return None
    loss = make_loss(OUTPUT_LOSSES, settings["output_loss"], {}, "output_loss")
    return Distributions((loss,), None if common is None else len(common[0]))


def _layers_text(layers: str | tuple[int, ...]) -> str:
    """As `layers` takes them in a file."""
    return layers if isinstance(layers, str) else ",".join(map(str, layers))
