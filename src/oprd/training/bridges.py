"""The bridges of a run: read from their files, or fitted before its first step."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from datasets import Dataset

from oprd.calibration.bridge.check import as_text, check_bridge, differing
from oprd.calibration.bridge.fit import BRIDGE_FILE, check_fit, fit_bridge
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.identity import supervised_positions
from oprd.calibration.models import FitModels, first_prompts
from oprd.calibration.processes import from_main, stand_in_pieces
from oprd.core.bridge import Bridge
from oprd.core.bridge.bases import HEADS, by_pair, joined, reads_heads
from oprd.core.bridge.space import BridgeSpace
from oprd.core.capture import hidden_size
from oprd.core.layers import LayerPair, pairs_text
from oprd.log import get_logger
from oprd.settings.bridge import FIT
from oprd.settings.run import OPRDConfig
from oprd.training.calibration import (
    BRIDGE_FOLDER,
    run_rollouts,
    template_options,
    write_rollouts,
)

logger = get_logger(__name__)


def load_bridges(args: OPRDConfig) -> dict[str, Bridge | None]:
    """The bridges that a run names, by name; None where one is to be fitted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is not a whole bridge.
    """
    names = [settings.bridge for settings in args.objectives()]
    return {
        name: None if name == FIT else Bridge.load(name) for name in dict.fromkeys(names) if name
    }


def check_can_fit(loaded: Mapping[str, Bridge | None], accelerator: Accelerator) -> None:
    """Refuse, with a ValueError, to fit where the models' weights are not there to be read."""
    if None in loaded.values() and stand_in_pieces(accelerator):
        raise ValueError(
            "bridge='fit' reads whole models, which FSDP and DeepSpeed keep in pieces: fit one "
            "first with `oprd bridge fit`, and set bridge to its file."
        )


def obtain_spaces(
    loaded: Mapping[str, Bridge | None],
    models: FitModels,
    pairs: Sequence[LayerPair],
    args: OPRDConfig,
    prompts: Any,
    device: torch.device,
) -> dict[str, BridgeSpace]:
    """The spaces in which a run compares states, by the name of their bridge.

    Args:
        loaded: of `load_bridges`.
        models: the run's.
        pairs: the layers that the run compares.
        args: its settings.
        prompts: its training prompts.
        device: where states are compared.

    Raises:
        ValueError: see `obtain_bridge`.
    """
    return {
        name: BridgeSpace(
            obtain_bridge(name, bridge, models, pairs, args, prompts),
            pairs,
            device,
            models.student.dtype,
        )
        for name, bridge in loaded.items()
    }


def obtain_bridge(
    name: str,
    loaded: Bridge | None,
    models: FitModels,
    pairs: Sequence[LayerPair],
    args: OPRDConfig,
    prompts: Any,
) -> Bridge:
    """A bridge that belongs to a run; one that is to be fitted is fitted once and kept.

    Args:
        name: its path, or "fit".
        loaded: of `load_bridges`.
        models: the run's.
        pairs: the layers that the run compares.
        args: its settings.
        prompts: its training prompts.

    Raises:
        ValueError: the bridge is of other models or layers, one that was kept is of other settings
            or prompts, or none can be fitted here.
    """
    file = Path(str(args.output_dir)) / BRIDGE_FOLDER / BRIDGE_FILE
    # The others may have another disk, and a fit takes all.
    if loaded is None and not from_main(file.is_file):
        return _fit(models, pairs, args, prompts, file)
    kept = loaded is None
    if loaded is None:
        name, loaded = str(file), Bridge.load(file)
    widths = hidden_size(models.student), hidden_size(models.teacher)
    positions = supervised_positions(args.positions, args.position_k)
    try:
        differences = check_bridge(
            loaded,
            widths,
            pairs,
            models.provenance,
            positions,
            run_rollouts(args),
            own=models.own is not None,
            may_fit=args.may_fit,
        )
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    if kept:
        _check_kept(file, loaded, models, args, prompts)
    for difference in differences:
        logger.warning(f"{name}: {difference}")
    return loaded


def _check_kept(
    file: Path, kept: Bridge, models: FitModels, args: OPRDConfig, prompts: Any
) -> None:
    """Refuse, with a ValueError, a bridge that this run would have fitted otherwise."""
    identity = models.identity_of(
        _first_prompts(args, prompts), args.max_completion_length, template_options(args)
    )
    provenance = kept.provenance or {}
    fitted = {
        **_basis_facts(kept),
        **_mapping(provenance.get("positions")),
        **_mapping(provenance.get("rollouts")),
        "prompts": provenance.get("prompts"),
    }
    wanted = {
        **_wanted_basis(args, kept),
        **supervised_positions(args.positions, args.position_k),
        **run_rollouts(args),
        "prompts": identity,
    }
    of_fit, of_run = differing(fitted, wanted)
    if of_run:
        raise ValueError(
            f"{file} was fitted with {as_text(of_fit)}, and the run asks for {as_text(of_run)}: "
            f"choose another output_dir, or delete {file.parent} to have it fitted anew."
        )


def _basis_facts(kept: Bridge) -> dict[str, Any]:
    """What settings decide of a bridge that was fitted."""
    facts: dict[str, Any] = {"bridge_rank": kept.rank, "bridge_basis": kept.basis}
    if (layer := kept.heads_layer) is not None:
        facts |= {"heads_metric": kept.heads_metric, "heads_rank": kept.rank_of(layer)}
    return facts


def _wanted_basis(args: OPRDConfig, kept: Bridge) -> dict[str, Any]:
    """The same as settings have it; a rank that is not looked at is left out."""
    bases = by_pair(args.bridge_basis, kept.pairs)
    wanted: dict[str, Any] = {"bridge_basis": joined(bases)}
    if set(bases) != {HEADS}:
        wanted["bridge_rank"] = args.bridge_rank
    if reads_heads(args.bridge_basis) and kept.heads_layer is not None:
        most = len(kept.statistics[kept.heads_layer].eigenvalues)
        wanted |= {"heads_metric": args.heads_metric, "heads_rank": args.heads_rank or most}
    return wanted


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first_prompts(args: OPRDConfig, prompts: Any) -> Dataset:
    """Those that a bridge is fitted on."""
    if not isinstance(prompts, Dataset):
        raise ValueError(
            "bridge='fit' needs training prompts with a length, and these are streamed: fit one "
            "with `oprd bridge fit`, and set its path."
        )
    return first_prompts(prompts, args.bridge_prompts)


def _fit(
    models: FitModels, pairs: Sequence[LayerPair], args: OPRDConfig, prompts: Any, file: Path
) -> Bridge:
    fitted_on = _first_prompts(args, prompts)
    settings = FitSettings(
        rank=args.bridge_rank,
        basis=args.bridge_basis,
        heads_metric=args.heads_metric,  # pyright: ignore[reportArgumentType] # checked by both
        heads_rank=args.heads_rank,
        layer_pairing=pairs_text(pairs),
        positions=args.positions,  # pyright: ignore[reportArgumentType] # likewise
        position_k=args.position_k,
        batch_size=args.per_device_train_batch_size,
        seed=args.seed,
    )
    check_fit(models.student, models.teacher, settings)
    folder = file.parent
    rollouts, drawn = write_rollouts(models, args, fitted_on, folder, "bridge='fit'")
    fitted = fit_bridge(
        models.student,
        models.teacher,
        rollouts,
        settings,
        provenance={**models.provenance, "rollouts": drawn},
        folder=folder,
        progress=not args.disable_tqdm,
        teach=models.teach,
        common=models.common,
        teacher_active=models.teacher_active,
    )
    state = PartialState()
    if state.is_main_process:
        fitted.save(folder)
        pull = fitted.report["pull"]
        if pull and pull["problem"]:
            logger.warning(f"bridge='fit': {pull['problem']}")
    state.wait_for_everyone()
    # Every process trains through the very same numbers.
    return Bridge.load(file)
