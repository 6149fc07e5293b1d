"""Which methods are compared, on which pairs, for how long."""

from dataclasses import replace

from lab.comparison import LADDER, Comparison
from lab.methods import (
    CONSUMED,
    LAYER_SCALES,
    MERGED,
    MERGED_PURE,
    OFF_POLICY,
    PAST,
    RANDOM_DIRECTION,
    SHOWN,
    SHOWN_ANOTHERS,
    WITH_ANOTHERS,
    WITH_SOLUTION,
)
from lab.noise import Noise
from lab.tokens import SUPERVISED_ON_SOLUTIONS

PRETRAINED = Comparison(
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
PRETRAINED_LONGER = replace(
    PRETRAINED,
    methods=(
        "OPRD",
        "unit length, weight 10",
        "reverse KL",
        "top-16 of the paper's runs",
        "top-1",
    ),
    steps=60,
    grid_steps=30,
    rollouts=8,
    eval_every=15,
    rates=(5e-5, 1e-4, 2e-4),
    ladder=LADDER,
    options=(("diagnostics_steps", 5), ("eval_limit", 96)),
    by="end",
)
# What the distance is scaled by, beside the weight that matters where gradients are clipped.
SCALES = ("OPRD", "scaled by layer, weight 10", "unit length, weight 1", "unit length, weight 10")
RATES_FOUND = ("OPRD, rate found", "unit length, weight 10, rate found")
SCALED = {
    task: Comparison(
        task,
        (*SCALES, *RATES_FOUND),
        steps=80,
        grid_steps=40,
        eval_every=20,
        rates=(5e-4, 1e-3, 2e-3, 5e-3),
        by="end",
    )
    for task in ("sums", "sorting")
}
# Whole runs at the rates that grids of whole runs found best, and at those that they find.
FOUND = {
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
SCALED["additions"] = Comparison(
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
WHAT_IS_SUPERVISED = (
    "last layer",
    "even layers",
    "odd layers",
    "first 5 tokens",
    "last 5 tokens",
    "last token",
    "mean over tokens",
)
ABLATIONS = (
    "OPRD",
    "OPRD, unit length",
    *WHAT_IS_SUPERVISED,
    LAYER_SCALES,
    "weight 0.01",
    "weight 100",
    "weight 100, gradients not clipped",
    "unit length, gradients not clipped",
    CONSUMED,
)
ABLATED_REINFORCED = Comparison(
    "sums, reinforced",
    ("OPRD", *WHAT_IS_SUPERVISED),
    steps=100,
    rates=(2e-3,),
    claims=(("OPRD", "last layer"), ("OPRD", "last token")),
    by="end",
    quick_part=1,
)
CHEAPER = (
    "OPRD",
    "constant prompt",
    "last 5 tokens",
    "last 5 tokens, constant prefix",
    "2 updates a rollout",
    "4 updates a rollout",
)
FEWER_ROLLOUTS = Comparison(
    "sums",
    (
        "OPRD",
        "5 steps ahead",
        "5 steps ahead, 2 updates a rollout",
        "short rollouts first",
        "the teacher's text at first",
        "5 steps ahead, 4 updates a rollout, the teacher's text at first",
        "rollouts of earlier steps",
        "prompts by distance",
        "positions by divergence",
    ),
    steps=160,
    eval_every=20,
    rates=(1e-3,),
    by="end",
)
# How many prompts it takes.
PROMPTS = Comparison(
    "sums",
    (
        "OPRD",
        "OPRD, 256 prompts",
        "OPRD, 16 prompts",
        "OPRD, 1 prompt",
        "reverse KL",
        "reverse KL, 16 prompts",
        "reverse KL, 1 prompt",
    ),
    steps=100,
    grid_steps=50,
    rates=(5e-4, 1e-3, 2e-3),
    claims=(("OPRD", "OPRD, 1 prompt"), ("reverse KL", "reverse KL, 1 prompt")),
    by="end",
)
ON_AND_OFF_POLICY = ("OPRD", *OFF_POLICY)
# The same where an early slip is carried along.
LONG_ON_AND_OFF_POLICY = Comparison(
    "chains",
    ON_AND_OFF_POLICY,
    steps=100,
    eval_every=20,
    rates=(5e-4, 1e-3, 2e-3),
    grid_steps=50,
    by="end",
)
NOISE = {
    task: Noise(steps, shares=(0.3, 0.1, 0.03, 0.01))
    for task, steps in {"sums": (250, 400, 600, 900, 1400), "sorting": (200, 400, 600, 900)}.items()
}
# Beside a step further than the teacher, one as long that no reference gives.
FURTHER = (("λ = 1.25", "OPRD"), ("λ = 1.25", RANDOM_DIRECTION))
PAST_REINFORCED = Comparison(
    "sums, reinforced",
    ("OPRD", *PAST),
    steps=100,
    eval_every=25,
    rates=(5e-4, 1e-3, 2e-3),
    grid_steps=50,
    claims=(*FURTHER, ("OPRD", "λ = 2")),
    by="end",
)
PAST_THE_TEACHER = replace(
    PAST_REINFORCED,
    pair="sums",
    methods=("OPRD", "λ = 1.25", RANDOM_DIRECTION),
    claims=FURTHER,
)
# A teacher that has most of its way before it.
PAST_EARLY = replace(PAST_THE_TEACHER, pair="sums, less reinforced")
MERGING = Comparison(
    "both",
    tuple(MERGED),
    steps=200,
    eval_every=40,
    rates=(5e-4, 1e-3, 2e-3),
    grid_steps=100,
    claims=((MERGED_PURE, "two teachers, mixed batches"),),
    by="end",
)
# At the rates that the shorter runs found best.
MERGING_LATER = replace(
    MERGING,
    methods=(MERGED_PURE, "two teachers, mixed batches"),
    steps=600,
    eval_every=100,
    grid_steps=None,
    chosen={MERGED_PURE: 2e-3, "two teachers, mixed batches": 5e-3},
)
SELF_TAUGHT_SUMS = Comparison(
    "sums, shown",
    (SHOWN, SHOWN_ANOTHERS, SUPERVISED_ON_SOLUTIONS),
    steps=60,
    eval_every=20,
    rates=(5e-4, 1e-3, 2e-3),
    grid_steps=30,
    claims=((SHOWN, SHOWN_ANOTHERS), (SHOWN, SUPERVISED_ON_SOLUTIONS)),
    by="end",
)
SELF_DISTILLATION = replace(
    SCALED["additions"],
    methods=(WITH_SOLUTION, WITH_ANOTHERS, SUPERVISED_ON_SOLUTIONS),
    claims=((WITH_SOLUTION, WITH_ANOTHERS), (WITH_SOLUTION, SUPERVISED_ON_SOLUTIONS)),
)
