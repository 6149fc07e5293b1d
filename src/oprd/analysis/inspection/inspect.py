"""An inspection from the loaded models to the advice."""

from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset

from oprd.analysis.inspection.advice import advise
from oprd.analysis.inspection.asked import Asked
from oprd.analysis.inspection.facts import Facts
from oprd.analysis.inspection.measure import check_pair, measure_pair
from oprd.analysis.inspection.need import told_need
from oprd.analysis.inspection.recipe import first_run, recipe
from oprd.analysis.inspection.tokens import stop_tokens
from oprd.analysis.machine import machine
from oprd.calibration.models import FitModels, first_prompts
from oprd.models.matching import paired_layers
from oprd.runs.progress import progress_bar
from oprd.runs.record import versions
from oprd.stopwatch import Stopwatch

FORMAT = 1
JSON_FILE, PICTURE, RECIPE, RUN = "inspect.json", "inspect.png", "train.yaml", "run"


def inspect_models(
    models: FitModels,
    prompts: Dataset,
    asked: Asked,
    tokens: dict[str, Any],
    folder: Path,
    free: int,
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
        free: bytes of memory that were free before the models were loaded.
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
    longest = max(len(rollout.prompt_ids) for rollout in rollouts)
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
        "memory": told_need(models, asked, advice, longest, first_run(there), free),
        "seconds": watch.take(),
        "machine": machine(),
        "versions": versions(),
    }


def _layers_text(layers: str | tuple[int, ...]) -> str:
    """As `layers` takes them in a file."""
    return layers if isinstance(layers, str) else ",".join(map(str, layers))
