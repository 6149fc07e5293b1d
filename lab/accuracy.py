"""The main comparison: OPRD beside output-space distillation, on two tasks with two teachers."""

from collections.abc import Mapping
from dataclasses import replace

from lab.comparison import RATES, Comparison

OPD = ("reverse KL", "forward KL", "top-4 of the paper's runs", "top-4 of Eq. 5", "top-1")
METHODS = ("OPRD", "OPRD, unit length", *OPD)
# The paper's own methods and the exact KL; quick runs of sums are long, so that sorting claims the
# rest. At less than half of the steps OPRD, which likes high rates, is not ahead on sums yet.
SUMS = Comparison(
    "sums",
    METHODS,
    claims=tuple(("OPRD", opd) for opd in ("reverse KL", "top-4 of the paper's runs", "top-1")),
    quick_part=2,
)
SORTING = Comparison(
    "sorting",
    METHODS,
    steps=120,
    eval_every=20,
    rates=RATES[1:],
    claims=tuple(("OPRD", opd) for opd in OPD),
    quick_part=1,
)
# Of the paper's kind: reinforcement learning made the teacher of the student.
SUMS_REINFORCED = replace(
    SUMS,
    pair="sums, reinforced",
    steps=100,
    rates=RATES[1:],
    quick_part=1,
)
SORTING_REINFORCED = replace(SORTING, pair="sorting, reinforced")
# By the names of the items that show them.
ITEMS: Mapping[str, Comparison] = {
    f"accuracy-{of.pair.replace(', ', '-')}": of
    for of in (SUMS, SORTING, SUMS_REINFORCED, SORTING_REINFORCED)
}
