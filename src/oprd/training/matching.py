"""How the layers of two models meet, and which weights a gradient then reaches."""

from collections.abc import Sequence

from transformers import PreTrainedModel

from oprd.core.capture import hidden_size, num_layers
from oprd.core.layers import LayerPair, pair_layers, select_layers


def pair_models(
    student: PreTrainedModel, teacher: PreTrainedModel, layers: str | Sequence[int]
) -> tuple[LayerPair, ...]:
    """Pair the student's selected layers with the teacher's (Eq. 11).

    Raises:
        ValueError: the states differ in width, or a layer does not exist.
    """
    widths = hidden_size(student), hidden_size(teacher)
    if widths[0] != widths[1]:
        raise ValueError(
            f"the student's states are {widths[0]} wide and the teacher's {widths[1]}: states of "
            "different widths cannot be compared. Use a teacher of the student's width."
        )
    depth = num_layers(student)
    return pair_layers(select_layers(layers, depth), depth, num_layers(teacher))


def gradient_reaches_all(student: PreTrainedModel, deepest_layer: int) -> bool:
    """Whether every weight that trains gets a gradient from states up to a layer.

    An LM head of its own never does, nor do blocks above the last supervised layer.
    """
    embedding = {id(parameter) for parameter in student.get_input_embeddings().parameters()}
    head = student.get_output_embeddings()
    own = [p for p in head.parameters() if id(p) not in embedding] if head is not None else []
    if any(parameter.requires_grad for parameter in own):
        return False
    return deepest_layer == num_layers(student)
