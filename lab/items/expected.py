"""What is expected of the items, by their names.

Bars are the paper's figures, or its direction where its scale is another. Items with results were
run before they were written down here, unless docs/paper.md says otherwise; the others were not.
"""

from collections.abc import Mapping

from lab.expectations import Above, Bar, Expectation, GapClosed, Reading, ShareOfGain
from lab.items.expected_of_bridges import EXPECTED_OF_BRIDGES
from lab.items.measurements import (
    RANK,
    RANK_COSINE,
    blind,
    cost,
    deterministic,
    ends_part,
    linear,
    merged,
    null_space,
    rank_advised,
    rank_curve,
    rank_falls,
)
from lab.methods import (
    MERGED_PURE,
    RANDOM_DIRECTION,
    SHOWN,
    SHOWN_ANOTHERS,
    WITH_ANOTHERS,
    WITH_SOLUTION,
)
from lab.tokens import SUPERVISED_ON_SOLUTIONS

TOP_K = "top-4 of the paper's runs"
PAST = "λ = 1.25"
MIXED = "two teachers, mixed batches"
# Reported by the paper.
GAP_CLOSED = 0.94
# What one prompt gives of the gain of all, at least, as published for output-space distillation.
ONE_PROMPT = 0.62
REINFORCED = "a reinforced teacher: "


def _accuracy(long: bool, of: str = "") -> tuple[Expectation, ...]:
    claims: tuple[tuple[str, str, Bar], ...] = (
        ("Table 2", "OPRD ends above top-1, the sampled token", Above("OPRD", "top-1")),
        ("Table 2", "OPRD ends above the likeliest tokens", Above("OPRD", TOP_K)),
        ("Table 2", "OPRD closes the gap to its teacher", GapClosed("OPRD", GAP_CLOSED)),
        ("Figs. 1, 4", "OPRD is ahead on the way", Above("OPRD", TOP_K, "area")),
        ("left out there", "OPRD ends above the exact reverse KL", Above("OPRD", "reverse KL")),
        ("Fig. 9", "students of OPD write longer responses", Above("top-1", "OPRD", "length", 0.1)),
    )
    asked = claims if long else claims[:-1]
    return tuple(Expectation(source, f"{of}{claim}", bar) for source, claim, bar in asked)


def _ranks(of: str = "") -> tuple[Expectation, ...]:
    few = Reading(f"the cosine is above {RANK_COSINE:.0%} at rank {RANK}", rank_curve)
    falls = Reading("the cosine at full width is a point below its top", rank_falls)
    advised = Reading(
        "the advised rank is within a factor of 2 of that of the highest cosine", rank_advised
    )
    return (
        Expectation("Fig. 12", f"{of}few directions suffice", few),
        Expectation("Fig. 12", f"{of}more directions carry less", falls),
        Expectation("Theorem 3", f"{of}a bridge carries most where ρ² crosses 1/2", advised),
    )


EXPECTED: Mapping[str, tuple[Expectation, ...]] = {
    **EXPECTED_OF_BRIDGES,
    "accuracy-sums": _accuracy(long=True),
    "accuracy-sorting": _accuracy(long=False),
    "accuracy-sums-reinforced": _accuracy(long=True, of=REINFORCED),
    "accuracy-sorting-reinforced": _accuracy(long=False, of=REINFORCED),
    "smollm2": (
        Expectation("Table 2", "so with a pretrained student, of top-1", Above("OPRD", "top-1")),
        Expectation(
            "Table 2",
            "so with a pretrained student, of the likeliest tokens",
            Above("OPRD", "top-16 of the paper's runs"),
        ),
    ),
    "smollm2-longer": (
        Expectation("Table 2", "so at the end of a long run, of top-1", Above("OPRD", "top-1")),
        Expectation(
            "Table 2",
            "so at the end of a long run, of the likeliest tokens",
            Above("OPRD", "top-16 of the paper's runs"),
        ),
        Expectation(
            "left out there",
            "so at the end of a long run, of the exact reverse KL",
            Above("OPRD", "reverse KL"),
        ),
        Expectation(
            "Table 2",
            "a pretrained student closes the gap to its teacher",
            GapClosed("OPRD", GAP_CLOSED),
        ),
        Expectation(
            "oprd",
            "the default scale ends at most 2 points lower",
            Above("unit length, weight 10", "OPRD", by=-2),
        ),
    ),
    "cost": (
        Expectation(
            "Table 3", "an update is faster, and takes less memory", cost("Qwen2.5-0.5B, 6 layers")
        ),
        Expectation("Table 3", "so where the vocabulary is small", cost("SmolLM2-135M")),
    ),
    "weights": (
        Expectation("Fig. 7", "OPRD beside top-1 helps, µ = 1", Above("top-1 + OPRD", "top-1")),
        Expectation(
            "Fig. 7",
            "OPRD beside top-1 helps more, µ = 10",
            Above("top-1 + 10 OPRD", "top-1 + OPRD"),
        ),
    ),
    "positions": (
        Expectation(
            "Fig. 8",
            "models part towards the end of responses",
            ends_part("sums"),
        ),
    ),
    "ablations-reinforced": tuple(
        Expectation("oprd", f"{REINFORCED}at one rate all {all_of} teach more", Above("OPRD", one))
        for all_of, one in (("layers", "last layer"), ("tokens", "last token"))
    ),
    "positions-reinforced": (
        Expectation(
            "Fig. 8",
            f"{REINFORCED}models part towards the end of responses",
            ends_part("sums, reinforced"),
        ),
    ),
    "ranks": _ranks(),
    "ranks-smollm2": (
        Expectation(
            "Fig. 12",
            "few directions suffice for a pretrained model",
            Reading(f"the cosine is above {RANK_COSINE:.0%} at rank {RANK}", rank_curve),
        ),
    ),
    "ranks-reinforced": _ranks(REINFORCED),
    "gradient-noise-sums": (
        Expectation(
            "Theorems 1, 5",
            "given the rollouts OPRD's gradient is exact, the sampled token's is not",
            Reading("over tokens the variance is 0 of all but top-1", deterministic),
        ),
        Expectation(
            "Theorem 6",
            "the sampled token's SNR falls to 0 linearly in δ",
            Reading("slopes within two standard errors of 1", linear),
        ),
    ),
    "gradient-noise-sorting": (
        Expectation(
            "Theorem 6",
            "the sampled token's SNR falls to 0 linearly in δ",
            Reading("slopes within two standard errors of 1", linear),
        ),
    ),
    "head-geometry": (
        Expectation(
            "Theorems 2, 7",
            "output losses leave an error where the LM head is blind",
            Reading("OPRD leaves less in the head's null space than the reverse KL", null_space),
        ),
        Expectation(
            "Theorem 8",
            "the weakest direction is seen (σ_1/σ_d)² times less",
            Reading("within a factor of 3, of each head", blind),
        ),
    ),
    "off-policy": (
        Expectation(
            "the title",
            "the student's own rollouts teach more than the teacher's responses",
            Above("OPRD", "OPRD on the teacher's responses"),
        ),
        Expectation(
            "the title",
            "the student's own rollouts teach more than those it wrote before training",
            Above("OPRD", "OPRD on the student's first responses"),
        ),
    ),
    "off-policy-long": (
        Expectation(
            "the title",
            "so of long responses",
            Above("OPRD", "OPRD on the teacher's responses"),
        ),
        Expectation(
            "the title",
            "so of long responses, beside those it wrote before training",
            Above("OPRD", "OPRD on the student's first responses"),
        ),
    ),
    "fewer-rollouts": (
        Expectation(
            "oprd",
            "rollouts of five steps written at once cost at most 2 points",
            Above("5 steps ahead", "OPRD", by=-2),
        ),
        Expectation(
            "oprd",
            "four updates on each and the teacher's text at first cost no more",
            Above("5 steps ahead, 4 updates a rollout, the teacher's text at first", "OPRD", by=-2),
        ),
    ),
    "prompts": (
        Expectation(
            "2609.04172",
            "one prompt gives most of the gain, of the reverse KL",
            ShareOfGain("reverse KL, 1 prompt", "reverse KL", ONE_PROMPT),
        ),
        Expectation(
            "oprd",
            "one prompt gives most of the gain, of OPRD",
            ShareOfGain("OPRD, 1 prompt", "OPRD", ONE_PROMPT),
        ),
        Expectation(
            "oprd",
            "16 prompts give most of the gain, of OPRD",
            ShareOfGain("OPRD, 16 prompts", "OPRD", ONE_PROMPT),
        ),
    ),
    **{
        name: (
            Expectation(
                "RIDE, 2609.36484", f"{of}: λ = 1.25 ends above λ = 1", Above(PAST, "OPRD")
            ),
            Expectation(
                "RIDE, 2609.36484", f"{of}: λ = 1.25 ends above the teacher", GapClosed(PAST, 1)
            ),
            Expectation(
                "RIDE, 2609.36484",
                f"{of}: the direction is what helps",
                Above(PAST, RANDOM_DIRECTION),
            ),
        )
        for name, of in (
            ("past-reinforced", "a reinforced teacher"),
            ("past-the-teacher", "a supervised teacher"),
            ("past-early", "a teacher half way"),
        )
    },
    "merging": (
        Expectation(
            "Latent-MOPD, 2610.02381",
            "one teacher an update beats several",
            Above(MERGED_PURE, MIXED),
        ),
        Expectation(
            "Latent-MOPD, 2610.02381",
            "the last three layers beat all",
            Above("two teachers, last three layers", MERGED_PURE),
        ),
        Expectation(
            "oprd",
            "one student is as good as both specialists",
            Reading("within 3 points of each on its own task", merged),
        ),
    ),
    "merging-later": (
        Expectation(
            "oprd",
            "one student is as good as both specialists after three times the steps",
            Reading("within 3 points of each on its own task", merged),
        ),
    ),
    **{
        name: (
            Expectation(
                "named as open",
                f"{of}: a solution shown to the teacher alone teaches",
                Above(shown, anothers),
            ),
            Expectation(
                "named as open",
                f"{of}: it teaches more than four times the steps of supervised training on it",
                Above(shown, SUPERVISED_ON_SOLUTIONS),
            ),
        )
        for name, of, shown, anothers in (
            ("self-distillation-sums", "sums", SHOWN, SHOWN_ANOTHERS),
            ("self-distillation", "SmolLM2", WITH_SOLUTION, WITH_ANOTHERS),
        )
    },
}
