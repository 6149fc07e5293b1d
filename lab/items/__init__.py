"""The figures and tables of the paper that the lab makes, what matters most first.

An item's `plan(quick)` returns the runs that it needs next, given those that are there; its
`report(quick)` writes JSON and a picture into `lab/results` and returns the lines to print.
"""

from dataclasses import replace
from typing import Protocol

from lab.comparison import Comparison
from lab.items.accuracy import Accuracy
from lab.items.gradient_noise import GradientNoise
from lab.items.head_geometry import HeadGeometry
from lab.items.positions import Positions
from lab.items.ranks import Ranks
from lab.items.single import Single
from lab.noise import Noise
from lab.runs import Run


class Item(Protocol):
    """A figure or table."""

    @property
    def name(self) -> str:
        """Of its files in `lab/results`."""
        ...

    @property
    def title(self) -> str:
        """What of the paper it is."""
        ...

    def plan(self, quick: bool) -> list[Run]:
        """The runs that it needs."""
        ...

    def report(self, quick: bool) -> list[str]:
        """Write what they found, and return it as lines."""
        ...


_METHODS = (
    "OPRD",
    "OPRD, unit length",
    "reverse KL",
    "forward KL",
    "top-4 of the paper's runs",
    "top-4 of Eq. 5",
    "top-1",
)
_BRIDGES = Comparison(
    "sums, other shape",
    ("Bridge", "reverse KL", "Bridge + reverse KL", "Bridge, then reverse KL"),
    steps=200,
    rates=(1e-3, 2e-3, 5e-4),
)
_BASES = ("Bridge", "Bridge, rrr", "Bridge, fisher")
_RANKS = ("Bridge", "Bridge, rank 8", "Bridge, rank 32")
_ABLATIONS = (
    "OPRD",
    "OPRD, unit length",
    "last layer",
    "even layers",
    "odd layers",
    "first 5 tokens",
    "last 5 tokens",
    "last token",
    "mean over tokens",
)
_CHEAPER = (
    "OPRD",
    "constant prompt",
    "last 5 tokens",
    "last 5 tokens, constant prefix",
    "2 updates a rollout",
    "4 updates a rollout",
)
_SHARES = (0.3, 0.1, 0.03, 0.01)
_ALL: tuple[Item, ...] = (
    Accuracy(
        "accuracy",
        "Table 2, Figs. 1, 4-6, 9-11: accuracy and diagnostics by step",
        tuple(Comparison(task, _METHODS) for task in ("sums", "sorting")),
    ),
    Single("bridges", "Tables 4, 5: bridge, output space, and both", _BRIDGES),
    Single(
        "bridge-alone",
        "The bridge alone, in the paper's 500 steps",
        replace(_BRIDGES, methods=_BRIDGES.methods[:1], steps=500, rates=(1e-3,)),
    ),
    Single(
        "bases",
        "Eq. 12 and other bases of a bridge, at the rate that is best for Eq. 12",
        replace(_BRIDGES, methods=_BASES, rates=(1e-3,)),
    ),
    Single(
        "bridge-ranks",
        "Learning through a bridge by rank, likewise",
        replace(_BRIDGES, methods=_RANKS, rates=(1e-3,)),
    ),
    Ranks("ranks", "Fig. 12, Theorem 3: what a bridge carries by rank", _BRIDGES),
    GradientNoise(
        "gradient-noise",
        "Theorems 1, 5, 6: variance and signal-to-noise ratio of gradients",
        (
            ("sums", Noise((250, 400, 600, 900, 1400), _SHARES)),
            ("sorting", Noise((300, 400, 600, 900), _SHARES)),
        ),
    ),
    HeadGeometry("head-geometry", "Theorems 2, 7, 8: what the LM head hides"),
    Positions("positions", "Fig. 8: cosine of the states on the first and last k tokens"),
    Single(
        "weights",
        "Fig. 7: top-1 with OPRD at weights 0, 1, 10",
        Comparison("sums", ("top-1", "top-1 + OPRD", "top-1 + 10 OPRD")),
    ),
    Single(
        "ablations",
        "Ablations: layers, positions, unit length, reduction",
        Comparison("sums", _ABLATIONS, rates=(1e-3, 2e-3)),
    ),
    Single(
        "cheaper",
        "Below the floor: constant prefixes, several updates a rollout",
        Comparison("sums", _CHEAPER, rates=(1e-3,)),
    ),
)
ITEMS = {item.name: item for item in _ALL}
