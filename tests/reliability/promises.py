"""What is promised, by where on the page it stands."""

from tests.reliability.inputs import INPUTS
from tests.reliability.promise import Promise, Proof
from tests.reliability.saves import SAVES
from tests.reliability.steps import STEPS

PROMISES: dict[str, tuple[Promise, ...]] = {
    "Saving, ending and going on": SAVES,
    "A step": STEPS,
    "What a run is given, writes and shows": INPUTS,
}
PROOFS: tuple[Proof, ...] = tuple(
    proof for promises in PROMISES.values() for promise in promises for proof in promise.proofs
)
