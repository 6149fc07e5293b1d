"""From what was measured of two models to how one should be trained towards the other.

Every sentence names the figure that it rests on; what is said of "the lab" stands in docs/paper.md.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from oprd.analysis.inspection.facts import Facts, PairingFacts
from oprd.models.matching import RELATED_COSINE

# Another pairing than the one that was asked for must be better by so much.
MARGIN = 0.02
# From which share of responses cut at the limit on their ends are missed.
MANY_CUT = 0.1
# Not a figure of these models: the paper's, for a student of 1.5B weights.
RATE = "auto"
WHY_RATE = (
    "found by a range test before the first step. It differs by model and loss: the paper's is "
    "1e-5 for 1.5B weights, and SmolLM2-135M learned best at 2e-4 by OPRD and at 5e-5 by the "
    "reverse KL. Of a short run it can be too low: after 80 steps of sums 72.9% beside 94.5% at "
    "five times the rate."
)


AT_UNIT_LENGTH = (
    "Plain states, the paper's, let the largest weigh most; at unit length and a weight of 10 the "
    "lab's students were 4.2 and 18.9 points ahead after 80 steps, each at its best rate, and more "
    "rates were good. "
    "SmolLM2-135M showed no difference."
)
DISTRIBUTIONS = (
    "Both models read the same tokens, so their next-token distributions can be compared: between "
    "models of another shape the lab's reverse KL took the student to 85.7% and a bridge alone to "
    "65.7%"
)
OVER_CLASSES = (
    "The two vocabularies' distributions can be compared over classes of tokens that begin alike: "
    "so the lab's student of characters learned from a teacher of byte pairs, and through a bridge "
    "alone hardly anything"
)
# Of the bridges that were tried beside an output-space loss.
LABS_RANK = 16
# At unit length a single number is a sign, which no gradient changes.
LEAST_RANK = 2
THROUGH_A_BRIDGE = "Through a bridge they meet at unit length, as in the paper."


class Reason(NamedTuple):
    """Why a setting is as it is."""

    setting: str
    because: str


BASIS = Reason(
    "bridge_basis",
    "the paper's: in the lab rrr could not be told from it (-0.6 points), and fisher taught 10.1 "
    "points less.",
)


@dataclass(frozen=True)
class Advice:
    """What to train with.

    Attributes:
        method: in a few words.
        settings: of `oprd train`, but for models, prompts and places.
        reasons: the first is the method's.
    """

    method: str
    settings: dict[str, Any]
    reasons: tuple[Reason, ...]


def advise(facts: Facts) -> Advice:
    """How to train, and why."""
    if facts.related:
        return _states(facts)
    if facts.head_problem is None:
        return _output(facts)
    return _bridge(facts)


def _states(facts: Facts) -> Advice:
    """OPRD on states as they are."""
    method = Reason(
        "state_loss",
        f"paired states have a mean cosine of {facts.cosine:.3f} on the student's rollouts, and "
        f"from {RELATED_COSINE} on two models count as of one origin. There OPRD went farther than "
        "every output-space loss in the lab: 99.9% beside the reverse KL's 91.8% on sums.",
    )
    settings = {"state_loss": "mse", **_compared(facts)}
    reasons = (method, *_compared_reasons(facts, AT_UNIT_LENGTH))
    return _complete("OPRD, the student's states to the teacher's", settings, reasons, facts)


def _output(facts: Facts) -> Advice:
    """A loss on next-token distributions, which models of any shape have in common."""
    if facts.bridge_rank and facts.cosine is None:
        return _beside_a_bridge(facts)
    method = Reason("output_loss", f"{_no_states(facts)}. {_distributions(facts)}.")
    untried = "; beside the KL it was tried between models of unequal widths alone"
    bridge = Reason("bridge", f"left out: {_carried(facts)}{untried if facts.bridge_rank else ''}.")
    settings = {"output_loss": "reverse_kl", "representation_weight": 0}
    return _complete("reverse KL in output space", settings, (method, bridge), facts)


def _beside_a_bridge(facts: Facts) -> Advice:
    """The output space, and states that a bridge carries beside it."""
    method = Reason("output_loss", f"{_no_states(facts)}. {_distributions(facts)}.")
    bridge = Reason(
        "bridge",
        "beside the reverse KL, at unit length and a weight of 10, a bridge took the lab's "
        "students of another shape 16.0 points farther than the KL alone on sums [10.7, 21.3] and "
        "4.2 over byte pairs [1.6, 6.9]; by itself it taught less (24.4% beside 69.0%).",
    )
    rank = Reason(
        "bridge_rank",
        f"{_carried(facts)}{_least(facts)}. Beside an output loss the lab took no more than 16.",
    )
    weight = Reason("representation_weight", "that of the lab's runs, and the default.")
    settings = {
        "output_loss": "reverse_kl",
        "bridge": "fit",
        "bridge_rank": max(min(facts.bridge_rank, LABS_RANK), LEAST_RANK),
        "bridge_basis": "pca",
        "representation_weight": 10.0,
        **_compared(facts),
    }
    reasons = (method, bridge, rank, BASIS, weight, *_compared_reasons(facts, THROUGH_A_BRIDGE))
    return _complete("reverse KL, and a bridge between states beside it", settings, reasons, facts)


def _distributions(facts: Facts) -> str:
    return OVER_CLASSES if facts.own_tokens else DISTRIBUTIONS


def _least(facts: Facts) -> str:
    return "; of one number unit length leaves a sign, so it is 2" if facts.bridge_rank == 1 else ""


def _bridge(facts: Facts) -> Advice:
    """States in a common space, where nothing else is left."""
    method = Reason(
        "bridge",
        f"{_no_states(facts)}, and output-space losses cannot read the LM heads "
        f"({facts.head_problem}). What is left is a bridge, through which the lab's student "
        "learned less than from an output-space loss (65.7% beside 85.7%).",
    )
    papers = "" if facts.bridge_rank else "; 8 is the paper's"
    rank = Reason("bridge_rank", f"{_carried(facts)}{papers}{_least(facts)}.")
    settings = {
        "bridge": "fit",
        "bridge_rank": max(facts.bridge_rank, LEAST_RANK) if facts.bridge_rank else 8,
        "bridge_basis": "pca",
        **_compared(facts),
    }
    reasons = (method, rank, BASIS, *_compared_reasons(facts, THROUGH_A_BRIDGE))
    return _complete("a bridge between the two models' states", settings, reasons, facts)


def _complete(
    method: str, settings: dict[str, Any], reasons: tuple[Reason, ...], facts: Facts
) -> Advice:
    """With what every run needs, and what the teacher reads."""
    reads: dict[str, Any] = {}
    if facts.own_tokens:
        reads = {"teacher_tokenizer": "own"}
        because = (
            "the student's token ids are other tokens to the teacher, so that it reads the text in "
            f"tokens of its own. States meet at {facts.shared:.0%} of the student's tokens."
        )
        reasons = (*reasons, Reason("teacher_tokenizer", because))
    length = f"that of the rollouts here, of which {facts.cut:.0%} were cut at it"
    if facts.cut >= MANY_CUT:
        length += ": a higher limit would show how those end"
    return Advice(
        method,
        {**reads, **settings, "max_completion_length": facts.limit, "learning_rate": RATE},
        (
            *reasons,
            Reason("max_completion_length", f"{length}."),
            Reason("learning_rate", WHY_RATE),
        ),
    )


def _compared(facts: Facts) -> dict[str, Any]:
    """Which states meet, and how."""
    counted = facts.positions in ("first_k", "last_k")
    return {
        "layers": facts.layers,
        "layer_pairing": _pairing(facts)[0],
        "positions": facts.positions,
        **({"position_k": facts.position_k} if counted else {}),
        "scale": "unit",
    }


def _compared_reasons(facts: Facts, scale: str) -> tuple[Reason, ...]:
    smallest, largest = facts.sizes
    spread = largest / smallest if smallest else float("inf")
    layers = positions = "as asked for."
    if facts.layers == "all":
        layers = "in the lab all were better than the last alone, by 8.1 points [0.9, 15.2]."
    if facts.positions == "all":
        positions = (
            "what is not supervised drifts: in the lab the last 5 of 15 tokens lost 15.3 points."
        )
    return (
        Reason(
            "layers",
            _after_cosines("pairs have cosines of {:.3f} to {:.3f}; ", facts.cosines) + layers,
        ),
        Reason("layer_pairing", _pairing(facts)[1]),
        Reason(
            "positions",
            _after_cosines(
                "the last pair's cosine is {:.3f} on the first quarter of responses and {:.3f} on "
                "the last; ",
                facts.ends,
            )
            + positions,
        ),
        Reason(
            "scale",
            f"the sizes of the teacher's states differ by a factor of {spread:.3g} between layers "
            f"(root mean square {smallest:.3g} to {largest:.3g}). {scale}",
        ),
    )


def _after_cosines(words: str, cosines: tuple[float, float] | None) -> str:
    """Words with two cosines in them, nothing where there are none."""
    return words.format(*cosines) if cosines else ""


def _pairing(facts: Facts) -> tuple[str, str]:
    """`layer_pairing` and why."""
    asked, *others = facts.pairings

    def likeness(pairing: PairingFacts) -> float:
        # Cosines are what OPRD raises; where they mean nothing, CKA is what is left.
        if facts.related and pairing.cosine is not None:
            return pairing.cosine
        return pairing.cka

    figure = "cosine" if facts.related else "CKA"
    best = max(others, key=likeness, default=asked)
    if likeness(best) > likeness(asked) + MARGIN:
        return best.pairs, (
            f"by {best.name} the mean {figure} of the pairs is {likeness(best):.3f}, and "
            f"{likeness(asked):.3f} by {asked.name}."
        )
    compared = "".join(f", and no better by {way.name} ({likeness(way):.3f})" for way in others)
    return asked.name, f"the mean {figure} of its pairs is {likeness(asked):.3f}{compared}."


def _no_states(facts: Facts) -> str:
    """Why states cannot meet as they are."""
    student, teacher = facts.widths
    if facts.same_states:
        return "both models' states are the same to the last bit: they differ in their LM heads"
    if facts.cosine is None:
        return f"the student's states are {student} wide and the teacher's {teacher}"
    return (
        f"paired states have a mean cosine of {facts.cosine:.3f} on the student's rollouts, below "
        f"the {RELATED_COSINE} from which two models count as of one origin"
    )


def _carried(facts: Facts) -> str:
    if not facts.bridge_rank:
        return (
            "no rank of a bridge is advised: on held-out rows the student predicts less than half "
            "of even the teacher's first directions"
        )
    return (
        f"a bridge of rank {facts.bridge_rank} would carry R² = {facts.bridge_r_squared:.2f} on "
        "held-out rows, and beyond that rank the student predicts less than half of a further "
        "direction"
    )
