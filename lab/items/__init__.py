"""The figures and tables of the paper that the lab makes, what matters most first.

An item's `plan(quick)` returns the runs that it needs next, given those that are there; its
`report(quick)` writes JSON and a picture into `lab/results`; its `table` and `verdicts` are
functions of that JSON.
"""

from collections.abc import Iterable
from dataclasses import replace

import typer

from lab import accuracy, students
from lab.comparison import RATES, Comparison
from lab.items.bridged import BRIDGED
from lab.items.compared import (
    DIAGNOSTICS,
    GRADIENT_NORM,
    OVERLAP,
    Compared,
)
from lab.items.comparisons import (
    ABLATED_REINFORCED,
    ABLATIONS,
    CHEAPER,
    FEWER_ROLLOUTS,
    FOUND,
    LONG_ON_AND_OFF_POLICY,
    MERGING,
    MERGING_LATER,
    NOISE,
    ON_AND_OFF_POLICY,
    PAST_EARLY,
    PAST_REINFORCED,
    PAST_THE_TEACHER,
    PRETRAINED,
    PRETRAINED_LONGER,
    PROMPTS,
    SCALED,
    SELF_DISTILLATION,
    SELF_TAUGHT_SUMS,
)
from lab.items.cost import LAB_OPD, Case, Cost
from lab.items.expected import EXPECTED
from lab.items.gradient_noise import GradientNoise
from lab.items.head_geometry import HeadGeometry
from lab.items.item import Item
from lab.items.long_responses import LongResponses
from lab.items.merging import Merging
from lab.items.positions import Positions
from lab.items.ranks import Ranks
from lab.quiet import quieten
from lab.runs import Run

_ALL: tuple[Item, ...] = (
    *(
        Compared(
            name,
            "Table 2, Figs. 1, 4-6, 9-11: accuracy and diagnostics by step",
            comparison,
            DIAGNOSTICS,
        )
        for name, comparison in accuracy.ITEMS.items()
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
        PRETRAINED,
        {**DIAGNOSTICS, **OVERLAP},
        timed=True,
    ),
    Compared(
        "smollm2-longer",
        "The same with 7.5 times the rollouts, and the default scale",
        PRETRAINED_LONGER,
        {**DIAGNOSTICS, **OVERLAP},
        timed=True,
    ),
    *BRIDGED,
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
    Ranks(
        "ranks-reinforced",
        "The same for a teacher made by reinforcement learning",
        "sums, reinforced",
        rollouts=1000,
    ),
    *(
        GradientNoise(
            f"gradient-noise-{task}",
            "Theorems 1, 5, 6: variance and signal-to-noise ratio of gradients",
            task,
            noise,
        )
        for task, noise in NOISE.items()
    ),
    HeadGeometry("head-geometry", "Theorems 2, 7, 8: what the LM head hides"),
    Positions(
        "positions",
        "Fig. 8: cosine of the states on the first and last k tokens",
        students.SUMS,
        pretrained=True,
    ),
    Positions(
        "positions-reinforced",
        "The same for a teacher made by reinforcement learning",
        students.REINFORCED,
    ),
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
            ABLATIONS,
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
    Compared(
        "ablations-reinforced",
        "Layers, positions and the mean with a teacher made by reinforcement learning, at one rate",
        ABLATED_REINFORCED,
    ),
    *(
        Compared(
            f"scales-{task}",
            "What the distance is scaled by, and rates that runs find themselves",
            comparison,
            GRADIENT_NORM,
        )
        for task, comparison in SCALED.items()
    ),
    *(
        Compared(f"rate-found-{task}", "A rate that runs find themselves", comparison)
        for task, comparison in FOUND.items()
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
        Comparison("sums", ON_AND_OFF_POLICY, rates=(1e-3,), quick_part=8),
    ),
    LongResponses(
        "off-policy-long",
        "The same where responses have 50 to 100 tokens, by step and by the clock",
        LONG_ON_AND_OFF_POLICY,
        timed=True,
    ),
    Compared("prompts", "What is gained from 1, 16, 256 and all prompts", PROMPTS),
    *(
        Compared(name, title, comparison)
        for name, title, comparison in (
            (
                "past-reinforced",
                "Targets beyond a teacher made by reinforcement learning, and controls",
                PAST_REINFORCED,
            ),
            (
                "past-the-teacher",
                "Targets beyond a teacher of further supervised training",
                PAST_THE_TEACHER,
            ),
            ("past-early", "Targets beyond a teacher early in its training", PAST_EARLY),
        )
    ),
    Merging("merging", "Two specialists of one base in one student", MERGING),
    Merging("merging-later", "The same in three times the steps", MERGING_LATER),
    Compared(
        "self-distillation-sums",
        "A student that teaches itself what it can tell where the solution is shown",
        SELF_TAUGHT_SUMS,
    ),
    Compared(
        "self-distillation",
        "A student that teaches itself with a worked solution, beside another problem's",
        SELF_DISTILLATION,
    ),
    Compared(
        "cheaper",
        "Below the floor: constant prefixes, several updates a rollout, at one rate",
        Comparison(
            "sums",
            CHEAPER,
            rates=(1e-3,),
            claims=(("OPRD", "last 5 tokens, constant prefix"),),
            quick_part=8,
        ),
    ),
    Compared(
        "fewer-rollouts",
        "Fewer and shorter rollouts, by step and by the clock, at one rate",
        FEWER_ROLLOUTS,
        timed=True,
    ),
)
ITEMS = {item.name: replace(item, expects=EXPECTED.get(item.name, ())) for item in _ALL}
# A selection that shows every kind. The others ask the same of other models, or take too long.
QUICK = (
    "accuracy-sorting",
    "cost",
    "bridges",
    "heads",
    "pulls",
    "tokenizers",
    "handed-over",
    "ranks",
    "gradient-noise-sorting",
    "head-geometry",
    "positions",
    "weights",
    "ablations",
    "unrelated",
    "past-reinforced",
    "merging",
    "self-distillation-sums",
    "cheaper",
)


def plan(names: Iterable[str], quick: bool) -> list[Run]:
    """The runs that some items need next, each once, the first item's first."""
    return list(dict.fromkeys(run for name in names for run in ITEMS[name].plan(quick)))


def report(name: str, quick: bool) -> None:
    """Write what an item's runs found."""
    quieten()
    ITEMS[name].report(quick)
    typer.echo(f"reported {name}")
