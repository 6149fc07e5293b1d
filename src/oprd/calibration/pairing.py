"""Which layers of two models meet, and by what measurement where there was one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from rich.console import Console
from torch import Tensor

from oprd.calibration.processes import from_main
from oprd.core.layers import LayerPair, Measure, measures, unmeasured
from oprd.models.matching import pair_models

# What a run's record calls them.
PAIRS, SIMILARITY, MEASURED_ON = "layer_pairs", "layer_similarity", "layer_similarity_on"
PAIRING = "layer_pairing"
# Rows of one rollout resemble each other, whatever layers do.
MIN_PROMPTS = 2


@dataclass(frozen=True)
class PairedLayers:
    """Layer pairs.

    Attributes:
        pairs: student layers ascending.
        similarity: a row of similarities to the teacher's layers for each of the student's; None
            where nothing was measured.
        measured_on: the pairing, and the models, prompts, positions and rollouts that it was
            measured on.
    """

    pairs: tuple[LayerPair, ...]
    similarity: list[list[float]] | None = None
    measured_on: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls,
        student: Any,
        teacher: Any,
        layers: str | Sequence[int],
        pairing: str,
        measure: Measure = unmeasured,
        measured_on: Mapping[str, Any] | None = None,
    ) -> "PairedLayers":
        """Pair the layers of two models.

        Args:
            student: a causal language model.
            teacher: likewise.
            layers: see `oprd.core.layers.pair_layers`.
            pairing: likewise.
            measure: called once where the pairing asks for it.
            measured_on: what it measures on.

        Raises:
            ValueError: see there.
        """
        found: list[Tensor] = []

        def keep() -> Tensor:
            found.append(measure())
            return found[0]

        pairs = pair_models(student, teacher, layers, pairing, keep)
        return cls(pairs, found[0].tolist(), measured_on) if found else cls(pairs)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> "PairedLayers | None":
        """What `facts` wrote; None where nothing was measured."""
        if record.get(SIMILARITY) is None:
            return None
        pairs = tuple(LayerPair(*pair) for pair in record[PAIRS])
        return cls(pairs, record[SIMILARITY], record.get(MEASURED_ON))

    def facts(self) -> dict[str, Any]:
        """What a record says of them."""
        found: dict[str, Any] = {PAIRS: [list(pair) for pair in self.pairs]}
        if self.similarity is not None:
            found |= {SIMILARITY: self.similarity, MEASURED_ON: self.measured_on}
        return found

    def show(self) -> None:
        """Print those that were measured in one line, each with its similarity."""
        if self.similarity is not None:
            shown = (f"{s}:{t} ({self.similarity[s - 1][t - 1]:.2f})" for s, t in self.pairs)
            console = Console(markup=False, highlight=False)
            console.print(f"Layer pairs, student:teacher (CKA): {', '.join(shown)}")


def recorded_pairs(
    record: Callable[[], Mapping[str, Any] | None],
    layers: Sequence[int],
    measured_on: Mapping[str, Any],
    resumed: bool,
) -> PairedLayers | None:
    """The pairs that were measured for a run before, in every process; None where they were not.

    Args:
        record: reads that of the run, in the main process.
        layers: the student's layers that are paired.
        measured_on: what would be measured on, and by which pairing.
        resumed: whether the run goes on, and keeps its pairing's pairs whatever they were measured
            on.

    Raises:
        ValueError: the record cannot be read.
    """

    def find() -> PairedLayers | None:
        kept = PairedLayers.of_record(record() or {})
        if kept is None or [pair.student for pair in kept.pairs] != list(layers):
            return None
        before = kept.measured_on or {}
        same = before.get(PAIRING) == measured_on.get(PAIRING) if resumed else before == measured_on
        return kept if same else None

    return from_main(find)


def check_prompts(prompts: Any, pairing: str, max_completion_length: int | None) -> None:
    """Refuse, with a ValueError, prompts on whose rollouts a pairing cannot measure."""
    if not measures(pairing):
        return
    what = f"layer_pairing={pairing!r} is measured on rollouts of the training prompts"
    way_out = "or name pairs, such as layer_pairing='1:1,2:3'"
    if prompts is None:
        raise ValueError(f"{what}, and there is no train_dataset: pass one, {way_out}.")
    if not isinstance(prompts, Dataset):
        raise ValueError(f"{what}, and these are streamed: pass some with a length, {way_out}.")
    if len(prompts) < MIN_PROMPTS:
        raise ValueError(
            f"{what}, {MIN_PROMPTS} at least, got {len(prompts)}: add some, {way_out}."
        )
    if max_completion_length is None:
        raise ValueError(f"{what}, which need max_completion_length: set it, {way_out}.")
