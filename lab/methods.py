"""What the lab compares, as settings of `OPRDConfig` by name."""

from typing import Any

from lab.offpolicy import SOLUTIONS, START, TEACHER
from lab.shown import TEMPLATE
from lab.tokens import OWN_BOTH, OWN_KL, OWN_TOKENS, RAW_IDS, SUPERVISED, SUPERVISED_ON_SOLUTIONS

OUTPUT_ONLY = {"representation_weight": 0.0}
TOP_4 = {"output_loss": "topk", "output_loss_kwargs": {"k": 4}}
PLAIN = {"scale": "none"}
UNIT_LENGTH = {"scale": "unit", "representation_weight": 1000 / 128}
NOT_CLIPPED = {"max_grad_norm": 0.0}
# The rate is found by the run itself.
AUTO = {"learning_rate": "auto"}
RANK = 16
LAYER_SCALES, CONSUMED = "scaled by layer", "states that have read their token"
HEADS, HEADS_READ_AGAIN = "Heads, centered", "Heads, centered, read again"
TRAINED_PROJECTION = "Bridge, P_S trained"
SHOWN, SHOWN_ANOTHERS = "self, shown the solution", "self, shown another's solution"
WITH_SOLUTION, WITH_ANOTHERS = "self, with the solution", "self, with another's solution"
ANOTHER_REFERENCE = "λ = 1.25, a reference of another seed"
MERGED_PURE = "two teachers"
RANDOM_DIRECTION = "λ = 1.25, in a random direction"
HEADS_THEN_TOP_1 = "Heads, then top-1"
# Behind a solution, for a model that has to write it once more.
AGAIN = "\nThat was an example with its answer. Answer in the same way: {{ prompt }}"
REVERSE_KL = {"output_loss": "reverse_kl"}
SAMPLED_TOKEN = {"output_loss": "sampled"}
TEACHER_FIRST = {"teacher_prefix": {"from": 1, "to": 0, "steps": 0.25}}


def _bridge(rank: int, mu: float, **settings: Any) -> dict[str, Any]:
    """A bridge at the paper's weight µ, whose distances are sums over the rank."""
    weight = mu * rank if settings.get("scale") == "none" else mu
    fit = {"bridge": "fit", "bridge_rank": rank, "bridge_prompts": 1000, "scale": "unit"}
    return {**fit, "representation_weight": float(weight), **settings}


def _heads(metric: str, **settings: Any) -> dict[str, Any]:
    """A bridge that reads both LM heads, whose distance is the sum of the metric."""
    fit = {"bridge": "fit", "bridge_basis": "heads", "heads_metric": metric, "layers": "last"}
    return {**fit, "bridge_prompts": 1000, **settings}


# Settings of `OPRDConfig`. The lab's vocabularies have 15 and 29 tokens, of which four are to it
# what the paper's sixteen are to 152 thousand.
METHODS: dict[str, dict[str, Any]] = {
    "OPRD": PLAIN,
    "OPRD, unit length": UNIT_LENGTH,
    "top-1": {**OUTPUT_ONLY, **SAMPLED_TOKEN},
    "top-4 of the paper's runs": {
        **OUTPUT_ONLY,
        "output_loss": "topk",
        "output_loss_kwargs": {"k": 4, "renormalize": False},
    },
    "top-4 of Eq. 5": {**OUTPUT_ONLY, **TOP_4},
    "top-16 of the paper's runs": {
        **OUTPUT_ONLY,
        "output_loss": "topk",
        "output_loss_kwargs": {"k": 16, "renormalize": False},
    },
    "reverse KL": {**OUTPUT_ONLY, **REVERSE_KL},
    "forward KL": {**OUTPUT_ONLY, "output_loss": "forward_kl"},
    "top-1 + OPRD": {**PLAIN, **SAMPLED_TOKEN},
    "top-1 + 10 OPRD": {**PLAIN, **SAMPLED_TOKEN, "representation_weight": 10.0},
    "last layer": {**PLAIN, "layers": "last"},
    "even layers": {**PLAIN, "layers": "even"},
    "odd layers": {**PLAIN, "layers": "odd"},
    "first 5 tokens": {**PLAIN, "positions": "first_k", "position_k": 5},
    "last 5 tokens": {**PLAIN, "positions": "last_k", "position_k": 5},
    "last 5 tokens, constant prefix": {
        **PLAIN,
        "positions": "last_k",
        "position_k": 5,
        "prefix_gradients": False,
    },
    "constant prompt": {**PLAIN, "prefix_gradients": False},
    "last token": {**PLAIN, "positions": "last"},
    "mean over tokens": {**PLAIN, "reduction": "token"},
    "weight 0.01": {**PLAIN, "representation_weight": 0.01},
    "weight 100": {**PLAIN, "representation_weight": 100.0},
    "weight 100, gradients not clipped": {**PLAIN, "representation_weight": 100.0, **NOT_CLIPPED},
    "unit length, gradients not clipped": {**UNIT_LENGTH, **NOT_CLIPPED},
    LAYER_SCALES: {"scale": "layer"},
    "scaled by layer, weight 10": {"scale": "layer", "representation_weight": 10.0},
    "unit length, weight 1": {"scale": "unit", "representation_weight": 1.0},
    "unit length, weight 10": {"scale": "unit", "representation_weight": 10.0},
    "OPRD, rate found": {**PLAIN, **AUTO},
    "scaled by layer, weight 10, rate found": {
        "scale": "layer",
        "representation_weight": 10.0,
        **AUTO,
    },
    "unit length, weight 10, rate found": {
        "scale": "unit",
        "representation_weight": 10.0,
        **AUTO,
    },
    CONSUMED: PLAIN,
    "2 updates a rollout": {**PLAIN, "updates_per_rollout": 2},
    "4 updates a rollout": {**PLAIN, "updates_per_rollout": 4},
    "5 steps ahead": {**PLAIN, "rollouts_ahead": 5},
    "5 steps ahead, 2 updates a rollout": {
        **PLAIN,
        "rollouts_ahead": 5,
        "updates_per_rollout": 2,
    },
    "short rollouts first": {**PLAIN, "rollout_horizon": {"from": 5, "to": 20, "steps": 0.5}},
    "positions by divergence": {**PLAIN, "positions": "divergence"},
    "the teacher's text at first": {**PLAIN, **TEACHER_FIRST},
    "5 steps ahead, 4 updates a rollout, the teacher's text at first": {
        **PLAIN,
        **TEACHER_FIRST,
        "rollouts_ahead": 5,
        "updates_per_rollout": 4,
    },
    # Of these half a batch each.
    "rollouts of earlier steps": {**PLAIN, "replay": 256},
    "prompts by distance": {**PLAIN, "curriculum": "error"},
    "Bridge": _bridge(RANK, 10),
    "Bridge, rrr": _bridge(RANK, 10, bridge_basis="rrr"),
    # The gradient at the last layer spans no more directions than these.
    "Bridge, fisher": _bridge(14, 1, bridge_basis="fisher", scale="none"),
    "Bridge, fisher, unit length": _bridge(14, 10, bridge_basis="fisher"),
    HEADS: _heads("centered"),
    HEADS_READ_AGAIN: _heads("centered"),
    HEADS_THEN_TOP_1: _heads("centered"),
    "Heads, prior": _heads("prior"),
    "Heads, fisher": _heads("fisher"),
    # Below at unit length, above in nats: a mean over layers.
    "Heads, fisher, pca below": _heads(
        "fisher", bridge_basis="pca+heads", bridge_rank=RANK, layers="all"
    ),
    "Heads, centered, pca below": _heads(
        "centered", bridge_basis="pca+heads", bridge_rank=RANK, layers="all"
    ),
    TRAINED_PROJECTION: _bridge(RANK, 10),
    "Bridge, rank 64": _bridge(64, 10),
    "Bridge, plain distances": _bridge(RANK, 1, scale="none"),
    "Bridge, constant rate": _bridge(RANK, 10, lr_scheduler_type="constant"),
    "Bridge, repetition penalty": _bridge(RANK, 10, repetition_penalty=1.05),
    "Bridge, last layer": _bridge(RANK, 10, layers="last"),
    # Over the first sixth of the run.
    "Bridge, crossfade to reverse KL": _bridge(
        RANK,
        10,
        layers="last",
        representation_weight={"from": 10, "to": 0, "steps": 1 / 6},
        output_weight={"from": 0, "to": 1, "steps": 1 / 6},
        **REVERSE_KL,
    ),
    "Heads + reverse KL": _heads("centered", **REVERSE_KL),
    "Bridge + reverse KL": _bridge(RANK, 1, **REVERSE_KL),
    "10 Bridge + reverse KL": _bridge(RANK, 10, **REVERSE_KL),
    "Bridge, fisher + reverse KL": _bridge(
        14, 1, bridge_basis="fisher", scale="none", **REVERSE_KL
    ),
    "Bridge, then reverse KL": _bridge(RANK, 10),
    "Bridge, then top-1": _bridge(RANK, 10),
    # Diagnostics compare distributions over one vocabulary.
    OWN_TOKENS: _bridge(RANK, 10, teacher_tokenizer="own", diagnostics_steps=0),
    OWN_KL: {**OUTPUT_ONLY, **REVERSE_KL, "teacher_tokenizer": "own", "diagnostics_steps": 0},
    OWN_BOTH: _bridge(RANK, 10, teacher_tokenizer="own", diagnostics_steps=0, **REVERSE_KL),
    # The official way: ids of the student's vocabulary, as if they were the teacher's.
    # Where that one ends is a digit to the student, which stops where it always did.
    RAW_IDS: _bridge(RANK, 10, diagnostics_steps=0, end_tokens="student"),
}
# Methods that train on other responses than the student's rollouts, with who wrote them.
OFF_POLICY = {
    "OPRD on the teacher's responses": TEACHER,
    "OPRD on the student's first responses": START,
    "OPRD on worked solutions": SOLUTIONS,
}
METHODS |= dict.fromkeys(OFF_POLICY, PLAIN)
# No state is compared, and the count of a loss over tokens is what the mean is over.
METHODS[SUPERVISED_ON_SOLUTIONS] = {
    "state_loss": "gram",
    "reduction": "token",
    "diagnostics_steps": 0,
}
METHODS[SUPERVISED] = {**METHODS[SUPERVISED_ON_SOLUTIONS], "teacher_tokenizer": "own"}
# Who writes in the student's place, by method.
WRITERS = {**OFF_POLICY, SUPERVISED: TEACHER, SUPERVISED_ON_SOLUTIONS: SOLUTIONS}
# Targets beyond the teacher, on the line from the student as it began, which is of its lineage.
PAST = {
    f"λ = {extrapolation:g}": {**PLAIN, "extrapolation": extrapolation}
    for extrapolation in (0.75, 1.15, 1.25, 1.5, 2.0)
}
PAST |= {
    "λ = 1.25, unit length": {**UNIT_LENGTH, "extrapolation": 1.25},
    "λ = 1.25, last layer": {**PLAIN, "extrapolation": 1.25, "layers": "last"},
    # What would be as good if the direction did not matter.
    ANOTHER_REFERENCE: {**PLAIN, "extrapolation": 1.25},
    RANDOM_DIRECTION: {**PLAIN, "extrapolation": 1.25},
}
# A student that teaches itself: the teacher reads a worked solution, of its row or of another.
SELF_TAUGHT: dict[str, dict[str, Any]] = {
    name: {"teacher_source": "copy", "teacher_template": template}
    for name, template in {
        SHOWN: TEMPLATE,
        SHOWN_ANOTHERS: TEMPLATE.replace("solution", "another"),
        WITH_SOLUTION: f"{{{{ solution }}}} {AGAIN}",
        WITH_ANOTHERS: f"{{{{ another }}}} {AGAIN}",
    }.items()
}
# Methods that train on the first so many prompts alone, again and again.
FEW_PROMPTS = {
    "OPRD, 1 prompt": 1,
    "OPRD, 16 prompts": 16,
    "OPRD, 256 prompts": 256,
    "reverse KL, 1 prompt": 1,
    "reverse KL, 16 prompts": 16,
}
METHODS |= {name: METHODS[name.partition(",")[0]] for name in FEW_PROMPTS}
# A student of two teachers, each of one of its tasks.
TOGETHER = {"teachers": [{"name": "sums"}, {"name": "sorting"}]}
MERGED = {
    MERGED_PURE: TOGETHER,
    "two teachers, mixed batches": {**TOGETHER, "teacher_batches": "mixed"},
    "two teachers, last three layers": {**TOGETHER, "layers": "last:3"},
}
METHODS |= {**PAST, **SELF_TAUGHT, **MERGED}
# Methods of two stages: the share of the steps that the first one takes, its rate, and the settings
# of the second, whose rate is the run's.
SECOND_STAGES = {
    "Bridge, then reverse KL": (1 / 4, 1e-3, {**OUTPUT_ONLY, **REVERSE_KL}),
    "Bridge, then top-1": (1 / 4, 1e-3, {**OUTPUT_ONLY, **SAMPLED_TOKEN}),
    HEADS_THEN_TOP_1: (1 / 4, 2e-3, {**OUTPUT_ONLY, **SAMPLED_TOKEN}),
}
