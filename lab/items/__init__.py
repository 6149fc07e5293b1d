"""The figures and tables of the paper that the lab makes, what matters most first.

An item's `plan(quick)` returns the runs that it needs next, given those that are there; its
`report(quick)` writes JSON and a picture into `lab/results`; its `table` and `verdicts` are
functions of that JSON.
"""

from collections.abc import Iterable
from dataclasses import replace

import typer

from lab import accuracy
from lab.comparison import LADDER, RATES, Comparison
from lab.items.compared import DIAGNOSTICS, GRADIENT_NORM, HEADS_PANELS, OVERLAP, Compared
from lab.items.cost import LAB_OPD, Case, Cost
from lab.items.gradient_noise import GradientNoise
from lab.items.head_geometry import HeadGeometry
from lab.items.item import Item
from lab.items.positions import Positions
from lab.items.ranks import Ranks
from lab.noise import Noise
from lab.quiet import quieten
from lab.runs import (
    CONSUMED,
    LAYER_SCALES,
    OFF_POLICY,
    PAST,
    RANDOM_DIRECTION,
    WITH_ANOTHERS,
    WITH_SOLUTION,
    Run,
)

_BRIDGES = Comparison(
    "sums, other shape",
    (
        "reverse KL",
        "Bridge",
        "Bridge + reverse KL",
        "10 Bridge + reverse KL",
        "Bridge, then reverse KL",
    ),
    steps=200,
    rates=(5e-4, 1e-3, 2e-3),
    claims=(("reverse KL", "Bridge"),),
    quick_part=2,
)
# The methods of the paper's tables.
_BRIDGES_OF_THE_PAPER = replace(
    _BRIDGES,
    methods=("top-1", "top-4 of the paper's runs", "Bridge", "Bridge, then top-1"),
    claims=(("top-4 of the paper's runs", "Bridge"),),
)
_PRETRAINED = Comparison(
    "additions",
    ("OPRD", "reverse KL", "top-16 of the paper's runs", "top-1"),
    steps=16,
    rollouts=4,
    eval_every=8,
    rates=(1e-4, 2e-4),
    ladder=(2e-5, 5e-5, 1e-4, 2e-4),
    options=(("diagnostics_steps", 2), ("eval_limit", 48)),
    quick_part=2,
    claims=(("OPRD", "reverse KL"),),
)
# What the distance is scaled by, beside the weight that matters where gradients are clipped.
_SCALES = ("OPRD", "scaled by layer, weight 10", "unit length, weight 1", "unit length, weight 10")
_RATES_FOUND = ("OPRD, rate found", "unit length, weight 10, rate found")
_SCALED = {
    task: Comparison(
        task,
        (*_SCALES, *_RATES_FOUND),
        steps=80,
        grid_steps=40,
        eval_every=20,
        rates=(5e-4, 1e-3, 2e-3, 5e-3),
        by="end",
    )
    for task in ("sums", "sorting")
}
# Whole runs at the rates that grids of whole runs found best, and at those that they find.
_FOUND = {
    task: Comparison(
        task,
        ("unit length, weight 10", "unit length, weight 10, rate found"),
        steps=steps,
        eval_every=steps // 3,
        rates=(best,),
        by="end",
    )
    for task, steps, best in (("sums", 300, 5e-3), ("sorting", 120, 2e-3))
}
_SCALED["additions"] = Comparison(
    "additions",
    ("OPRD", "unit length, weight 10", "unit length, weight 10, rate found"),
    steps=24,
    grid_steps=12,
    rollouts=8,
    eval_every=24,
    rates=(1e-4, 2e-4, 5e-4),
    ladder=(2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3),
    options=(("eval_limit", 32), ("diagnostics_steps", 0)),
    by="end",
)
_BASES = ("Bridge", "Bridge, rrr", "Bridge, fisher", "Bridge, fisher, unit length")
_HEADS = (
    "reverse KL",
    "Heads, fisher",
    "Heads, prior",
    "Heads, centered",
    "Heads, fisher, pca below",
    "Bridge",
    "Bridge, rrr",
)
_THROUGH_HEADS = replace(
    _BRIDGES,
    methods=_HEADS,
    steps=160,
    eval_every=20,
    rates=(1e-3, 2e-3, 5e-3),
    ladder=(*LADDER, 1e-2),
    grid_steps=80,
    claims=(("Heads, fisher", "Bridge"), ("Heads, fisher", "Bridge, rrr")),
    by="end",
)
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
    LAYER_SCALES,
    "weight 0.01",
    "weight 100",
    "weight 100, gradients not clipped",
    "unit length, gradients not clipped",
    CONSUMED,
)
_CHEAPER = (
    "OPRD",
    "constant prompt",
    "last 5 tokens",
    "last 5 tokens, constant prefix",
    "2 updates a rollout",
    "4 updates a rollout",
)
_OFF_POLICY = ("OPRD", *OFF_POLICY)
_NOISE = {
    task: Noise(steps, shares=(0.3, 0.1, 0.03, 0.01))
    for task, steps in {"sums": (250, 400, 600, 900, 1400), "sorting": (200, 400, 600, 900)}.items()
}
_ALL: tuple[Item, ...] = (
    *(
        Compared(
            f"accuracy-{comparison.pair}",
            "Table 2, Figs. 1, 4-6, 9-11: accuracy and diagnostics by step",
            comparison,
            DIAGNOSTICS,
        )
        for comparison in (accuracy.SUMS, accuracy.SORTING)
    ),
    Cost(
        "cost",
        "Table 3: seconds and transient memory of an update",
        {
            "sums": Case(
                {"batch_size": 64, "prompt_length": 9, "response_length": 21},
                LAB_OPD,
                rounds=20,
                pair="sums",
            ),
            "SmolLM2-135M": Case({"batch_size": 1}),
            "Qwen2.5-0.5B, 6 layers": Case(
                {"shape": "qwen2.5-0.5b", "layers_count": 6, "batch_size": 1}
            ),
        },
    ),
    Compared(
        "smollm2",
        "A pretrained model: accuracy by step and by wall-clock",
        _PRETRAINED,
        {**DIAGNOSTICS, **OVERLAP},
        timed=True,
    ),
    Compared("bridges", "Tables 4, 5: bridge, output space, and both", _BRIDGES_OF_THE_PAPER),
    Compared("bridges-kl", "The same with the exact KL", _BRIDGES),
    Compared(
        "bridge-alone",
        "The bridge alone, in the paper's 500 steps",
        replace(_BRIDGES, methods=("Bridge",), steps=500, rates=(1e-3,), claims=(), quick_part=10),
    ),
    Compared(
        "bases",
        "Eq. 12 and other bases of a bridge",
        replace(_BRIDGES, methods=_BASES, claims=(("Bridge", "Bridge, fisher"),)),
    ),
    Compared(
        "heads",
        "A bridge that reads both LM heads, beside other bases and the exact KL",
        _THROUGH_HEADS,
        HEADS_PANELS,
    ),
    Compared(
        "heads-bpe",
        "The same over a vocabulary of 3,072 byte pairs",
        replace(_THROUGH_HEADS, pair="words, other shape"),
        HEADS_PANELS,
    ),
    Ranks(
        "ranks",
        "Fig. 12, Theorem 3: what a bridge carries by rank",
        "sums, other shape",
        rollouts=1000,
    ),
    Ranks(
        "ranks-smollm2",
        "The same for SmolLM2-135M and the demo's teacher",
        "additions",
        rollouts=128,
    ),
    *(
        GradientNoise(
            f"gradient-noise-{task}",
            "Theorems 1, 5, 6: variance and signal-to-noise ratio of gradients",
            task,
            noise,
        )
        for task, noise in _NOISE.items()
    ),
    HeadGeometry("head-geometry", "Theorems 2, 7, 8: what the LM head hides"),
    Positions("positions", "Fig. 8: cosine of the states on the first and last k tokens"),
    Compared(
        "weights",
        "Fig. 7: top-1 with OPRD at weights 0, 1, 10",
        Comparison(
            "sums",
            ("top-1", "top-1 + OPRD", "top-1 + 10 OPRD"),
            steps=75,
            rates=RATES[1:],
            claims=(("top-1 + 10 OPRD", "top-1"),),
            by="end",
            quick_part=1,
        ),
    ),
    Compared(
        "ablations",
        "Ablations: layers, positions, scale, weight, reduction, at one rate",
        Comparison(
            "sums",
            _ABLATIONS,
            steps=75,
            rates=(2e-3,),
            evaluated_quickly=True,
            claims=(
                *(("OPRD", variant) for variant in ("last layer", "last token")),
                ("OPRD, unit length", "OPRD"),
            ),
            quick_part=1,
        ),
        GRADIENT_NORM,
    ),
    *(
        Compared(
            f"scales-{task}",
            "What the distance is scaled by, and rates that runs find themselves",
            comparison,
            GRADIENT_NORM,
        )
        for task, comparison in _SCALED.items()
    ),
    *(
        Compared(f"rate-found-{task}", "A rate that runs find themselves", comparison)
        for task, comparison in _FOUND.items()
    ),
    Compared(
        "unrelated",
        "Models of one shape and two initialisations: states and output space",
        Comparison(
            "sums, unrelated",
            ("reverse KL", "unit length, weight 10"),
            steps=80,
            grid_steps=40,
            eval_every=20,
            rates=(1e-3, 2e-3),
            ladder=(5e-4, 1e-3, 2e-3),
            claims=(("reverse KL", "unit length, weight 10"),),
            by="end",
        ),
    ),
    Compared(
        "off-policy",
        "The same loss on responses that the student did not write, at one rate",
        Comparison("sums", _OFF_POLICY, rates=(1e-3,), quick_part=8),
    ),
    Compared(
        "past-the-teacher",
        "Targets beyond the teacher, beside a random direction and another seed's reference",
        Comparison(
            "sums",
            ("OPRD", *PAST),
            steps=150,
            eval_every=30,
            rates=(1e-3, 2e-3),
            claims=(("λ = 1.25", "OPRD"), ("λ = 1.25", RANDOM_DIRECTION)),
            by="end",
        ),
    ),
    Compared(
        "self-distillation",
        "A student that teaches itself with a worked solution, beside another problem's",
        replace(
            _SCALED["additions"],
            methods=(WITH_SOLUTION, WITH_ANOTHERS),
            claims=((WITH_SOLUTION, WITH_ANOTHERS),),
        ),
    ),
    Compared(
        "cheaper",
        "Below the floor: constant prefixes, several updates a rollout, at one rate",
        Comparison(
            "sums",
            _CHEAPER,
            rates=(1e-3,),
            claims=(("OPRD", "last 5 tokens, constant prefix"),),
            quick_part=8,
        ),
    ),
)
ITEMS = {item.name: item for item in _ALL}


def plan(names: Iterable[str], quick: bool) -> list[Run]:
    """The runs that some items need next, each once, the first item's first."""
    return list(dict.fromkeys(run for name in names for run in ITEMS[name].plan(quick)))


def report(name: str, quick: bool) -> None:
    """Write what an item's runs found."""
    quieten()
    ITEMS[name].report(quick)
    typer.echo(f"reported {name}")
