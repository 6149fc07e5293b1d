"""How the layers and vocabularies of two models meet, and which weights a gradient reaches."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from oprd.core.capture import hidden_size, num_layers
from oprd.core.layers import LayerPair, Measure, measures, pair_layers, unmeasured
from oprd.core.objective import STATE_LOSSES
from oprd.log import get_logger
from oprd.models.heads import lm_head

# States of models of one origin agree far better, those of others hardly at all (the paper's pairs
# stand at 0.075 or less).
RELATED_COSINE = 0.25

logger = get_logger(__name__)


def pair_models(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    layers: str | Sequence[int],
    pairing: str = "proportional",
    measure: Measure = unmeasured,
) -> tuple[LayerPair, ...]:
    """Pair the student's selected layers with the teacher's; see `pair_layers`."""
    return pair_layers(layers, num_layers(student), num_layers(teacher), pairing, measure)


def paired_layers(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    layers: str | Sequence[int],
    pairing: str = "proportional",
) -> tuple[int, ...]:
    """The student's layers that will be paired, known before anything is measured.

    Raises:
        ValueError: what `pair_layers` refuses without measuring.
    """
    all_alike = torch.zeros(num_layers(student), num_layers(teacher))
    pairs = pair_models(student, teacher, layers, pairing, lambda: all_alike)
    return tuple(pair.student for pair in pairs)


def layers_read(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    layers: str | Sequence[int],
    pairing: str = "proportional",
    *,
    compares: bool = True,
) -> tuple[Sequence[int], Sequence[int]]:
    """The layers of either model whose states are read: all of them where pairs are measured.

    Args:
        student: one model.
        teacher: the other.
        layers: see `pair_layers`.
        pairing: see `pair_layers`.
        compares: whether states are compared, once they are paired.

    Raises:
        ValueError: what `pair_layers` refuses without measuring.
    """
    if measures(pairing):
        paired_layers(student, teacher, layers, pairing)
        return range(1, num_layers(student) + 1), range(1, num_layers(teacher) + 1)
    pairs = pair_models(student, teacher, layers, pairing)
    if not compares:
        return (), ()
    return [pair.student for pair in pairs], [pair.teacher for pair in pairs]


def same_width(student: PreTrainedModel, teacher: PreTrainedModel) -> bool:
    """Whether a state of one has a cosine with a state of the other."""
    return hidden_size(student) == hidden_size(teacher)


def check_widths(
    student: PreTrainedModel, teacher: PreTrainedModel, *, may_fit: bool = True
) -> None:
    """Refuse to compare states of different widths row by row.

    Args:
        student: one model.
        teacher: the other.
        may_fit: whether the run may fit a bridge itself, to advise that.

    Raises:
        ValueError: with both widths, and what would do.
    """
    if not same_width(student, teacher):
        others = [name for name, kind in STATE_LOSSES.items() if not kind.equal_widths]
        relational = f", set state_loss to {' or '.join(map(repr, others))}" if others else ""
        raise ValueError(
            f"the student's states are {hidden_size(student)} wide and the teacher's "
            f"{hidden_size(teacher)}: states of different widths can only be compared through a "
            "bridge. Fit one with `oprd bridge fit` and set bridge to its file"
            f"{_or_fit(may_fit)}{relational}, or use an output_loss with representation_weight=0."
        )


def common_vocabulary(
    student: PreTrainedModel, teacher: PreTrainedModel, *, same_meaning: bool
) -> int:
    """How many tokens output terms compare: those that both LM heads have.

    Args:
        student: its head is read, and refused where that cannot be done.
        teacher: likewise.
        same_meaning: whether the tokenizers were compared, so that what the longer head has more
            of is padding, or tokens that the student does not know.

    Raises:
        ValueError: a head cannot be read, or the sizes differ and nothing is known of their tokens.
    """
    sizes = lm_head(student).vocab_size, lm_head(teacher).vocab_size
    if sizes[0] != sizes[1] and not same_meaning:
        raise ValueError(
            f"the student's vocabulary has {sizes[0]} tokens and the teacher's {sizes[1]}, and "
            "without the teacher's tokenizer padding cannot be told from other tokens: pass "
            "teacher_processing_class. A representation loss alone needs no equal vocabularies."
        )
    return min(sizes)


def gradient_reaches_all(student: PreTrainedModel, layers: Sequence[int], *, output: bool) -> bool:
    """Whether every weight that trains gets a gradient.

    Without an output loss the LM head gets none, nor do blocks above the last compared layer.

    Args:
        student: not wrapped.
        layers: those that are compared.
        output: whether there is an output loss.
    """
    if output:
        return True
    embedding = {id(parameter) for parameter in student.get_input_embeddings().parameters()}
    head = student.get_output_embeddings()
    own = [p for p in head.parameters() if id(p) not in embedding] if head is not None else []
    if any(parameter.requires_grad for parameter in own):
        return False
    return max(layers) == num_layers(student)


def check_trains(student: PreTrainedModel) -> None:
    """Refuse, with a ValueError, a student of which nothing trains."""
    if not any(parameter.requires_grad for parameter in student.parameters()):
        raise ValueError(
            "no weight of the student trains: every parameter has requires_grad=False. Load a PEFT "
            "adapter with PeftModel.from_pretrained(…, is_trainable=True), pass peft_config to "
            "train a new one, or unfreeze the weights that are to train."
        )


def _or_fit(may_fit: bool) -> str:
    return ", or set bridge='fit'" if may_fit else ""


def warn_if_unrelated(cosine: float | None, *, may_fit: bool = True) -> None:
    """Point to a bridge where the states of the first batch have little in common.

    Args:
        cosine: mean over layers and positions; None where it was not measured.
        may_fit: see `check_widths`.
    """
    if cosine is not None and cosine < RELATED_COSINE:
        logger.warning(
            f"The models' states have a cosine of {cosine:.3f} on the first batch that compares "
            "them: they seem to be "
            "of different origin, and pulling one to the other needs a bridge. Fit one with "
            "`oprd bridge fit --student … --teacher … --prompts …` and set bridge to its file"
            f"{_or_fit(may_fit)}."
        )
