"""What is refused before any long work, because settings and what was given do not fit."""

from typing import Any

from accelerate import Accelerator
from accelerate.logging import get_logger
from datasets import Dataset, IterableDataset
from torch import Tensor, nn

from oprd.training.config import OPRDConfig

# States of models of one origin agree far better, those of others hardly at all (the paper's pairs
# stand at 0.075 or less).
RELATED_COSINE = 0.25

logger = get_logger(__name__)


def check_streaming(dataset: Any, args: OPRDConfig) -> None:
    """Refuse, with a ValueError, a stream where a setting needs a dataset with a length."""
    if not isinstance(dataset, IterableDataset):
        return
    needing = {"rollouts_per_prompt": 1, "updates_per_rollout": 1, "long_prompts": "error"}
    for name, default in needing.items():
        if getattr(args, name) != default:
            raise ValueError(
                f"{name}={getattr(args, name)!r} needs a dataset with a length, and this one is "
                "streamed."
            )


def check_path_options(args: OPRDConfig) -> None:
    """Refuse what describes a teacher's path for a model that is there already."""
    for name in (
        "teacher_model_init_kwargs",
        "teacher_model_revision",
        "teacher_base_model_name_or_path",
    ):
        if getattr(args, name) is not None:
            raise ValueError(
                f"{name} is for a teacher given by its path, and this one is a model: leave it out."
            )


def check_own_weights(student: nn.Module, teacher: nn.Module) -> None:
    """Refuse a teacher that would train with the student."""
    students = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in students for parameter in teacher.parameters()):
        raise ValueError(
            "teacher_model shares weights with the student and would train with it: "
            "pass a copy, or the path of an adapter."
        )


def check_prompt_count(dataset: Any, args: OPRDConfig) -> None:
    """Refuse a dataset too small for one step."""
    if not isinstance(dataset, Dataset):
        return
    available = len(dataset) * args.rollouts_per_prompt
    if available < args.rollouts_per_step:
        raise ValueError(
            f"{len(dataset)} prompts give {available} rollouts, and a step needs "
            f"{args.rollouts_per_step}: lower per_device_train_batch_size or "
            "gradient_accumulation_steps, or add prompts."
        )


def check_heads_stand_whole(accelerator: Accelerator) -> None:
    """Refuse output terms where the LM heads' weights are not there to be read."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    zero3 = plugin is not None and plugin.zero_stage == 3
    fsdp = getattr(accelerator.state, "fsdp_plugin", None) is not None
    if zero3 or (fsdp and not accelerator.is_fsdp2):
        raise ValueError(
            "output_loss, diagnostics_steps and updates_per_rollout read LM heads' weights, which "
            f"{'DeepSpeed ZeRO-3' if zero3 else 'FSDP 1'} keeps in pieces: use FSDP2 or DeepSpeed "
            "ZeRO-2, or leave them out."
        )


def warn_if_unrelated(cosine: float | None) -> None:
    """Point to a bridge where the states of the first batch have little in common.

    Args:
        cosine: mean over layers and positions; None where it was not measured.
    """
    if cosine is not None and cosine < RELATED_COSINE:
        logger.warning(
            f"The models' states have a cosine of {cosine:.3f} on the first batch that compares "
            "them: they seem to be "
            "of different origin, and pulling one to the other needs a bridge. Fit one with "
            "`oprd bridge fit --student … --teacher … --prompts …` and set bridge to its file, or "
            "set bridge='fit'."
        )


def check_ids(ids: Tensor, student_rows: int, teacher_rows: int) -> None:
    """Refuse sampled ids beyond the teacher's embedding, which a student's padding allows.

    Args:
        ids: [B, K].
        student_rows: rows of the student's embedding.
        teacher_rows: rows of the teacher's.
    """
    if student_rows > teacher_rows and int(ids.max()) >= teacher_rows:
        raise ValueError(
            f"the student sampled token {int(ids.max())}, and the teacher's embedding has "
            f"{teacher_rows} rows: pass generation_kwargs={{'suppress_tokens': [...]}} with the "
            "ids beyond it."
        )
