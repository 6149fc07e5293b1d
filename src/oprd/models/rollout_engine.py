"""What must hold of the engine that writes rollouts, where it is not Transformers itself."""

import importlib
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from oprd.extras import check_installed
from oprd.log import get_logger
from oprd.supported import check_vllm

# Of vLLM's: chooses how a layer on a CPU multiplies, and packs its weights for that.
PACKS = "dispatch_cpu_unquantized_gemm"

logger = get_logger(__name__)


def check_engine(mode: str, device: str) -> None:
    """Refuse a vLLM that weights would not reach, and let them reach one on a CPU.

    Args:
        mode: "colocate", or "server".
        device: on which the student trains, by its type.

    Raises:
        ImportError: there is none, or see `check_vllm`.
        ValueError: weights go to a server by NCCL, and this is no CUDA device.
    """
    found = check_vllm()
    if mode == "server" and device != "cuda":
        raise ValueError(
            "vllm_mode='server' sends weights to the server by NCCL, from a CUDA device, and this "
            f"run trains on {device}: take vllm_mode='colocate', or use_vllm=false."
        )
    if found is None:
        check_installed("vllm", "vllm", "use_vllm")
    elif mode == "colocate" and device == "cpu":
        _leave_weights_unpacked(found)


def _leave_weights_unpacked(version: str) -> None:
    """Let vLLM for a CPU read the weights that it is given after it has loaded.

    It packs those of linear layers as it loads them, and computes with what it packed: of later
    ones, the LM head's would be passed over without a sign of it, the others' refused.
    """
    layers: Any = importlib.import_module("vllm.model_executor.layers.utils")
    if not hasattr(layers, PACKS):
        raise ImportError(
            f"vllm {version} packs the weights of a CPU's layers in another way than is known: "
            "take use_vllm=false, or another version of vllm."
        )
    setattr(layers, PACKS, _unpacked)


def _unpacked(layer: Any, remove_weight: bool) -> None:
    layer.cpu_linear = functional.linear


def joined(engine: Any, student: nn.Module, *, half: bool) -> None:
    """Let TRL's engine keep its completions in order, and say where it writes with other weights.

    Args:
        engine: TRL's, whose `generate` is replaced.
        student: that it writes for.
        half: whether the student trains in half precision, by autocast.
    """
    engine.generate = in_order(engine.generate)
    colocated = getattr(engine, "llm", None)
    if colocated is None or half:
        return
    own = next(student.parameters()).dtype
    theirs = colocated.llm_engine.model_config.dtype
    if own != theirs:
        logger.warning(
            f"vLLM writes rollouts with weights in {str(theirs).removeprefix('torch.')}, its own "
            f"choice for this checkpoint, and the student trains in "
            f"{str(own).removeprefix('torch.')}: they are drawn from a slightly other model. "
            "Training in bf16, or use_vllm=false, has no such gap."
        )


def in_order(generate: Callable[..., Any]) -> Callable[..., Any]:
    """The `generate` of TRL's engine, whose completions TRL takes in the order in which they come.

    Args:
        generate: takes `prompts` as token ids, and `images`, by name; returns the prompts that it
            read first, and then their completions.

    Raises:
        RuntimeError: when it is called, a completion is of another prompt.
    """

    @wraps(generate)
    def checked(*, prompts: Sequence[Sequence[int]], images: Any = None, **options: Any) -> Any:
        found = generate(prompts=prompts, images=images, **options)
        read = found[0]
        # An engine writes pictures' places out. Fewer completions are counted where all end up.
        if images is None and read is not None and len(read) == len(prompts):
            pairs = zip(prompts, read, strict=True)
            other = next((n for n, (p, r) in enumerate(pairs, 1) if list(p) != list(r)), None)
            if other is not None:
                raise RuntimeError(
                    f"completion {other} of {len(prompts)} is of another prompt than was asked "
                    "for: the rollout engine has lost their order. See its log."
                )
        return found

    return checked


def check_completions(
    prompt_ids: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], limit: int | None
) -> None:
    """Refuse what an engine was not asked for.

    Args:
        prompt_ids: what was asked.
        completions: what was written, one for each.
        limit: most tokens of one; None for any number.

    Raises:
        RuntimeError: there are fewer completions than prompts, or more, or one is too long.
    """
    if len(completions) != len(prompt_ids):
        raise RuntimeError(
            f"{len(prompt_ids)} rollouts were asked for and {len(completions)} came back: "
            "see the rollout engine's log."
        )
    longest = max(map(len, completions), default=0)
    if limit is not None and longest > limit:
        raise RuntimeError(
            f"rollouts of at most {limit} tokens were asked for, and one of {longest} came back: "
            "see the rollout engine's log."
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
