"""What a run measures before its first step, on rollouts that are drawn as it draws its own."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

from accelerate import Accelerator
from datasets import Dataset
from torch import Tensor

from oprd.calibration.identity import (
    UNSHAPED,
    drawn_rollouts,
    reads_facts,
    supervised_positions,
)
from oprd.calibration.models import FitModels, first_prompts
from oprd.calibration.pairing import PAIRING, PairedLayers, recorded_pairs
from oprd.calibration.processes import from_main, stand_in_pieces
from oprd.calibration.rollouts import Rollout
from oprd.calibration.similarity import MAX_ROLLOUTS, Active, measure_similarity
from oprd.core.layers import measures
from oprd.log import get_logger
from oprd.models.matching import paired_layers
from oprd.models.sampling import Sampling
from oprd.runs.checkpoints import find_checkpoint
from oprd.runs.identity import as_it_began
from oprd.runs.record import read_record
from oprd.settings.run import OPRDConfig

# In the output directory; what is measured beside the fit of a bridge finds its rollouts there.
BRIDGE_FOLDER, PAIRING_FOLDER = "bridge", "layer_pairing"

logger = get_logger(__name__)


def obtain_pairs(
    models: FitModels,
    args: OPRDConfig,
    prompts: Any,
    accelerator: Accelerator,
    *,
    fits: bool,
    teacher_active: Active = nullcontext,
) -> PairedLayers:
    """The layers that a run compares; measured where they are neither named nor recorded.

    Args:
        models: of the run.
        args: likewise.
        prompts: what it trains on.
        accelerator: likewise.
        fits: whether it also fits a bridge, whose rollouts serve both.
        teacher_active: entered while the teacher reads.

    Raises:
        ValueError: the models are in pieces, or see `measure_similarity`.
    """
    both, layers, pairing = (models.student, models.teacher), args.layer_spec, args.layer_pairing
    if not measures(pairing):
        return PairedLayers.of(*both, layers, pairing)
    setting, output = f"layer_pairing={pairing!r}", Path(str(args.output_dir))
    if stand_in_pieces(accelerator):
        raise ValueError(
            f"{setting} reads whole models, which FSDP and DeepSpeed keep in pieces: find the "
            "pairs first, in a run on one device or by `oprd bridge fit`, and name them, such as "
            "layer_pairing='1:1,2:3'."
        )
    count = args.bridge_prompts if fits else MAX_ROLLOUTS
    read = first_prompts(prompts, min(count, MAX_ROLLOUTS))
    measured_on = {
        PAIRING: pairing,
        **models.provenance,
        "positions": supervised_positions(args.positions, args.position_k),
        "prompts": models.identity_of(read, args.max_completion_length, template_options(args)),
        "rollouts": run_rollouts(args),
        **reads_facts(own=models.own is not None),
    }
    wanted = args.resume_from_checkpoint
    checkpoint = from_main(lambda: find_checkpoint(output, wanted, say=False))

    def record() -> Mapping[str, Any] | None:
        return as_it_began(Path(checkpoint))["facts"] if checkpoint else read_record(output)

    paired = paired_layers(*both, layers, pairing)
    kept = recorded_pairs(record, paired, measured_on, resumed=checkpoint is not None)
    if kept is not None:
        return kept

    def measure() -> Tensor:
        folder = output / (BRIDGE_FOLDER if fits else PAIRING_FOLDER)
        rollouts, _ = write_rollouts(models, args, first_prompts(prompts, count), folder, setting)
        return measure_similarity(
            *both,
            rollouts,
            args.positions,  # pyright: ignore[reportArgumentType] # checked by the configuration
            args.position_k,
            setting=setting,
            batch_size=args.per_device_train_batch_size,
            seed=args.seed,
            teacher_active=teacher_active,
            progress=not args.disable_tqdm,
            teach=models.teach,
        )

    return PairedLayers.of(*both, layers, pairing, measure, measured_on)


def write_rollouts(
    models: FitModels, args: OPRDConfig, prompts: Dataset, folder: Path, setting: str
) -> tuple[list[Rollout], dict[str, Any]]:
    """One rollout of the student a prompt, unless they are there, and how they were drawn.

    `setting` is what asks for them, in messages; see `FitModels.write_rollouts`.
    """
    return models.write_rollouts(
        prompts,
        run_sampling(args, setting),
        folder,
        batch_size=args.per_device_train_batch_size,
        template_options=template_options(args),
        progress=not args.disable_tqdm,
    )


def run_sampling(args: OPRDConfig, setting: str) -> Sampling:
    """One rollout a prompt, drawn as the run draws its own; what cannot be followed is named.

    Args:
        args: of the run.
        setting: the one that asks for the rollouts, in messages.

    Raises:
        ValueError: there is no length limit, or a value is out of range.
    """
    if args.max_completion_length is None:
        raise ValueError(f"{setting} needs max_completion_length, the limit of its rollouts.")
    if ignored := sorted(set(_generation_kwargs(args)) - set(UNSHAPED)):
        logger.warning(
            f"{setting} writes its rollouts without {', '.join(ignored)} of generation_kwargs, so "
            "that they differ from those that the run trains on: where that matters, set bridge to "
            "a file that `oprd bridge fit --rollouts` made of the run's own, and layer_pairing to "
            "that bridge's pairs."
        )
    return Sampling(
        1, max_new_tokens=args.max_completion_length, seed=args.seed, **_run_shaping(args)
    )


def run_rollouts(args: OPRDConfig) -> dict[str, Any]:
    """How the run draws its rollouts, as a bridge's provenance names it."""
    return drawn_rollouts(_run_shaping(args), args.max_completion_length, template_options(args))


def template_options(args: OPRDConfig) -> dict[str, Any]:
    """What the run's chat template is given."""
    return dict(cast(Mapping[str, Any], args.chat_template_kwargs or {}))


def _run_shaping(args: OPRDConfig) -> dict[str, Any]:
    """The run's values of `UNSHAPED`."""
    further = _generation_kwargs(args)
    # As TRL has it, generation_kwargs go before settings of the same name.
    given = {name: further.get(name, getattr(args, name)) for name in UNSHAPED}
    shaping = {**UNSHAPED, **{name: v for name, v in given.items() if v is not None}}
    # -1 is vLLM's way to say all tokens.
    return shaping | ({"top_k": 0} if shaping["top_k"] == -1 else {})


def _generation_kwargs(args: OPRDConfig) -> Mapping[str, Any]:
    return cast(Mapping[str, Any], args.generation_kwargs or {})
