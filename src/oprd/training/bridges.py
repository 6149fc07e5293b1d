"""The bridges of a run: read from their files, or fitted before its first step."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, PartialState
from datasets import Dataset

from oprd.calibration.bridge.check import as_text, check_bridge, differing
from oprd.calibration.bridge.fit import BRIDGE_FILE, FitSettings, check_fit, fit_bridge
from oprd.calibration.identity import (
    UNSHAPED,
    drawn_rollouts,
    prompts_identity,
    supervised_positions,
)
from oprd.calibration.models import FitModels
from oprd.core.bridge import Bridge
from oprd.core.bridge.space import BridgeSpace
from oprd.core.capture import hidden_size
from oprd.core.layers import LayerPair
from oprd.log import get_logger
from oprd.models.sampling import Sampling
from oprd.training.config import OPRDConfig

FIT = "fit"
FOLDER = "bridge"

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
    plugins = ("fsdp_plugin", "deepspeed_plugin")
    sharded = any(getattr(accelerator.state, plugin, None) is not None for plugin in plugins)
    if sharded and None in loaded.values():
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


def bridge_facts(spaces: Mapping[str, BridgeSpace]) -> dict[str, Any]:
    """What a run's record says of its bridges: what they are, and hashes of their numbers."""
    bridges = {name: space.bridge for name, space in spaces.items()}
    described = {
        name: {
            "rank": bridge.rank,
            "basis": bridge.basis,
            "rows": bridge.rows,
            "cosine": [fit.cosine for fit in bridge.statistics.values()],
            "provenance": bridge.provenance,
        }
        for name, bridge in bridges.items()
    }
    return {"bridges": described, "bridge_hashes": [_hash(b) for b in bridges.values()]}


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
    file = Path(str(args.output_dir)) / FOLDER / BRIDGE_FILE
    if loaded is None and not file.is_file():
        return _fit(models, args, prompts, file)
    kept = loaded is None
    if loaded is None:
        name, loaded = str(file), Bridge.load(file)
    widths = hidden_size(models.student), hidden_size(models.teacher)
    positions = supervised_positions(args.positions, args.position_k)
    try:
        differences = check_bridge(
            loaded, widths, pairs, models.provenance, positions, run_rollouts(args)
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
    rendered = models.render(
        _first_prompts(args, prompts), args.max_completion_length, template_options(args)
    )
    provenance = kept.provenance or {}
    fitted = {
        "bridge_rank": kept.rank,
        "bridge_basis": kept.basis,
        **_mapping(provenance.get("positions")),
        **_mapping(provenance.get("rollouts")),
        "prompts": provenance.get("prompts"),
    }
    wanted = {
        "bridge_rank": args.bridge_rank,
        "bridge_basis": args.bridge_basis,
        **supervised_positions(args.positions, args.position_k),
        **run_rollouts(args),
        "prompts": prompts_identity([prompt.ids for prompt in rendered]),
    }
    of_fit, of_run = differing(fitted, wanted)
    if of_run:
        raise ValueError(
            f"{file} was fitted with {as_text(of_fit)}, and the run asks for {as_text(of_run)}: "
            f"choose another output_dir, or delete {file.parent} to have it fitted anew."
        )


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _first_prompts(args: OPRDConfig, prompts: Any) -> Dataset:
    """Those that a bridge is fitted on."""
    if not isinstance(prompts, Dataset):
        raise ValueError(
            "bridge='fit' needs training prompts with a length, and these are streamed: fit one "
            "with `oprd bridge fit`, and set its path."
        )
    return prompts.select(range(min(args.bridge_prompts, len(prompts))))


def _fit(models: FitModels, args: OPRDConfig, prompts: Any, file: Path) -> Bridge:
    fitted_on = _first_prompts(args, prompts)
    sampling = run_sampling(args)
    settings = FitSettings(
        rank=args.bridge_rank,
        basis=args.bridge_basis,  # pyright: ignore[reportArgumentType] # checked by both
        layers=args.layer_spec,
        positions=args.positions,  # pyright: ignore[reportArgumentType] # likewise
        position_k=args.position_k,
        batch_size=args.per_device_train_batch_size,
        seed=args.seed,
    )
    check_fit(models.student, models.teacher, settings)
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    rollouts, drawn = models.write_rollouts(
        fitted_on,
        sampling,
        folder,
        batch_size=args.per_device_train_batch_size,
        template_options=template_options(args),
        progress=not args.disable_tqdm,
    )
    fitted = fit_bridge(
        models.student,
        models.teacher,
        rollouts,
        settings,
        provenance={**models.provenance, "rollouts": drawn},
        folder=folder,
        progress=not args.disable_tqdm,
    )
    state = PartialState()
    if state.is_main_process:
        fitted.save(folder)
    state.wait_for_everyone()
    # Every process trains through the very same numbers.
    return Bridge.load(file)


def _hash(bridge: Bridge) -> str:
    digest = hashlib.sha256()
    for _, buffer in sorted(bridge.named_buffers()):
        digest.update(buffer.to("cpu", torch.float32).numpy().tobytes())
    return digest.hexdigest()[:16]


def run_sampling(args: OPRDConfig) -> Sampling:
    """One rollout a prompt, drawn as the run draws its own; what cannot be followed is named.

    Raises:
        ValueError: there is no length limit, or a value is out of range.
    """
    if args.max_completion_length is None:
        raise ValueError("bridge='fit' needs max_completion_length, the limit of its rollouts.")
    if ignored := sorted(set(_generation_kwargs(args)) - set(UNSHAPED)):
        logger.warning(
            f"bridge='fit' writes its rollouts without {', '.join(ignored)} of generation_kwargs, "
            "so that they differ from those that the run trains on: where that matters, set bridge "
            "to a file that `oprd bridge fit --rollouts` made of the run's own."
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
