"""What is expected of comparisons between models of another shape, by the names of the items."""

from collections.abc import Mapping

from lab.expectations import Above, Expectation, FallsFromItsTop, GapClosed
from lab.methods import HEADS, HEADS_THEN_TOP_1
from lab.tokens import OWN_BOTH, OWN_TOKENS, RAW_IDS, SUPERVISED

EXPECTED_OF_BRIDGES: Mapping[str, tuple[Expectation, ...]] = {
    "bridges": (
        Expectation("Table 4", "a bridge alone teaches", GapClosed("Bridge", 0)),
        Expectation("Table 4", "a bridge alone is below top-1", Above("top-1", "Bridge")),
        Expectation(
            "Table 4",
            "a bridge alone solves as many problems by one of several samples as top-1",
            Above("Bridge", "top-1", "best", by=-1),
        ),
        Expectation(
            "Table 5",
            "a bridge, then top-1, ends above the bridge",
            Above("Bridge, then top-1", "Bridge"),
        ),
        Expectation(
            "Table 5",
            "a bridge, then top-1, solves more by one of several samples than top-1",
            Above("Bridge, then top-1", "top-1", "best"),
        ),
    ),
    "collapse": (
        Expectation("Eq. 14", "training P_S does worse", Above("Bridge", "Bridge, P_S trained")),
    ),
    "collapse-later": (
        Expectation(
            "LastOPD, 2609.28845",
            "a bridge alone rises and then collapses",
            FallsFromItsTop("Bridge", by=5),
        ),
    ),
    "handed-over": (
        Expectation(
            "LastOPD, 2609.28845",
            "a bridge that hands over to the output space beats it alone",
            Above("Bridge, crossfade to reverse KL", "reverse KL"),
        ),
        Expectation(
            "LastOPD, 2609.28845",
            "handing over slowly beats a hard switch",
            Above("Bridge, crossfade to reverse KL", "Bridge, then reverse KL"),
        ),
        Expectation(
            "oprd",
            "a bridge always on beats the output space",
            Above("10 Bridge + reverse KL", "reverse KL"),
        ),
    ),
    "handed-over-bpe": (
        Expectation(
            "oprd",
            "so over a vocabulary of byte pairs",
            Above("10 Bridge + reverse KL", "reverse KL"),
        ),
    ),
    "heads": (
        Expectation(
            "oprd",
            "both LM heads as a bridge teach at least as much as the reverse KL",
            Above(HEADS, "reverse KL", by=-2),
        ),
    ),
    "heads-bpe": (
        Expectation(
            "oprd", "so over a vocabulary of byte pairs", Above(HEADS, "reverse KL", by=-2)
        ),
    ),
    **{
        name: (Expectation("oprd", claim, Above(HEADS, "reverse KL", by=-2)),)
        for name, claim in (
            ("heads-sorting", "so on another task"),
            ("heads-untied", "so where heads are not the embedding"),
            ("heads-weaker", "so with a weaker student"),
            ("heads-same-sums", "so between models of one shape: sums"),
            ("heads-same-sorting", "so between models of one shape: sorting"),
        )
    },
    "heads-then": (
        Expectation(
            "oprd",
            "heads, then top-1, end above top-1 alone",
            Above(HEADS_THEN_TOP_1, "top-1"),
        ),
    ),
    "tokenizers": tuple(
        Expectation("oprd", f"across tokenizers {claim}", bar)
        for claim, bar in (
            ("a bridge alone teaches", GapClosed(OWN_TOKENS, 0)),
            ("it teaches more than ids read as the teacher's", Above(OWN_TOKENS, RAW_IDS)),
            ("distributions beside it teach more", Above(OWN_BOTH, OWN_TOKENS)),
            ("and more than four times the steps on its text", Above(OWN_BOTH, SUPERVISED)),
        )
    ),
}
