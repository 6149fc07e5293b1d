"""Comparisons between models of another shape, and of whatever their states meet through."""

from dataclasses import replace

from lab.comparison import LADDER, Comparison
from lab.items.compared import HEADS_PANELS, LIVE_PANELS, Compared
from lab.items.item import Item
from lab.items.pulls import Pulls
from lab.items.tokenizers import Tokenizers
from lab.methods import HEADS, HEADS_READ_AGAIN, HEADS_THEN_TOP_1, TRAINED_PROJECTION
from lab.tokens import OWN_BOTH, OWN_KL, OWN_TOKENS, RAW_IDS, SUPERVISED

BRIDGES = Comparison(
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
BRIDGES_OF_THE_PAPER = replace(
    BRIDGES,
    methods=("top-1", "top-4 of the paper's runs", "Bridge", "Bridge, then top-1"),
    claims=(("top-4 of the paper's runs", "Bridge"),),
)
BASES = ("Bridge", "Bridge, rrr", "Bridge, fisher", "Bridge, fisher, unit length")
HEADS_AND_BASES = (
    "reverse KL",
    HEADS,
    "Heads, prior",
    "Heads, fisher",
    "Heads, centered, pca below",
    "Heads, fisher, pca below",
    "Bridge",
    "Bridge, rrr",
)
THROUGH_HEADS = replace(
    BRIDGES,
    methods=HEADS_AND_BASES,
    steps=160,
    eval_every=20,
    rates=(1e-3, 2e-3, 5e-3),
    ladder=(*LADDER, 1e-2),
    grid_steps=80,
    claims=((HEADS, "Bridge"), (HEADS, "Bridge, rrr")),
    by="end",
)
OVER_BYTE_PAIRS = replace(
    THROUGH_HEADS,
    pair="words, other shape",
    methods=("reverse KL", HEADS, "Heads, prior", "Heads, fisher", "Bridge"),
    claims=(("Bridge", HEADS),),
)
# At the targets of a high rank the student agrees less with its teacher than before training.
RANKS_OVER_BYTE_PAIRS = replace(
    OVER_BYTE_PAIRS,
    methods=("Bridge", "Bridge, rank 64"),
    rates=(5e-4,),
    grid_steps=None,
    claims=(("Bridge", "Bridge, rank 64"),),
)
HEADS_THAT_MOVE = replace(
    THROUGH_HEADS,
    methods=(HEADS, HEADS_READ_AGAIN),
    rates=(2e-3,),
    grid_steps=None,
    claims=(),
)
HANDED_OVER = replace(
    THROUGH_HEADS,
    methods=(
        "reverse KL",
        "Bridge, crossfade to reverse KL",
        "Bridge, then reverse KL",
        "10 Bridge + reverse KL",
        "Heads + reverse KL",
    ),
    claims=(("10 Bridge + reverse KL", "reverse KL"),),
)
HANDED_OVER_BYTE_PAIRS = replace(HANDED_OVER, pair=OVER_BYTE_PAIRS.pair)
# What heads alone teach where the first pair's task, head, student and shape are other ones.
_ELSEWHERE = replace(
    THROUGH_HEADS,
    methods=("reverse KL", HEADS),
    steps=120,
    grid_steps=60,
    claims=((HEADS, "reverse KL"),),
)
HEADS_ELSEWHERE = {
    name: replace(_ELSEWHERE, pair=pair)
    for name, pair in (
        ("heads-sorting", "sorting, other shape"),
        ("heads-untied", "sums, heads untied"),
        ("heads-weaker", "sums, weaker student"),
    )
}
HEADS_ELSEWHERE |= {
    f"heads-same-{task}": replace(
        _ELSEWHERE,
        pair=task,
        methods=("OPRD", "reverse KL", HEADS),
        steps=100,
        grid_steps=50,
        claims=(("OPRD", HEADS),),
    )
    for task in ("sums", "sorting")
}
# At the rate that heads alone were best at.
HEADS_THEN_OUTPUT = replace(
    THROUGH_HEADS,
    methods=("top-1", HEADS, HEADS_THEN_TOP_1),
    chosen={HEADS: 2e-3},
    claims=((HEADS_THEN_TOP_1, "top-1"),),
)
# States that have read the same, and distributions, against a teacher that reads another
# vocabulary's ids, and against its texts.
OTHER_TOKENS = replace(
    BRIDGES,
    pair="sums, other tokens",
    methods=(OWN_BOTH, OWN_KL, OWN_TOKENS, RAW_IDS, SUPERVISED),
    # Where distributions meet those that the same shapes with one vocabulary found best; the others
    # by a grid of one seed.
    chosen={OWN_BOTH: 2e-3, OWN_KL: 2e-3, OWN_TOKENS: 1e-4, RAW_IDS: 2e-5, SUPERVISED: 2e-3},
    claims=((OWN_BOTH, RAW_IDS), (OWN_BOTH, OWN_TOKENS), (OWN_TOKENS, RAW_IDS)),
    by="end",
)
# One switch at a time beside the bridge as it is, and whether accuracy falls while cosines rise.
COLLAPSE = replace(
    BRIDGES,
    methods=(
        "Bridge",
        TRAINED_PROJECTION,
        "Bridge, plain distances",
        "Bridge, constant rate",
        "Bridge, repetition penalty",
        "Bridge, last layer",
    ),
    rates=(2e-3,),
    evaluated_quickly=True,
    quick_part=5,
    claims=(),
    by="end",
)
COLLAPSE_LATER = replace(COLLAPSE, methods=("Bridge",), steps=1500, eval_every=100, quick_part=10)

BRIDGED: tuple[Item, ...] = (
    Compared("bridges", "Tables 4, 5: bridge, output space, and both", BRIDGES_OF_THE_PAPER),
    Compared("bridges-kl", "The same with the exact KL", BRIDGES),
    Compared(
        "bridge-alone",
        "The bridge alone, in the paper's 500 steps",
        replace(BRIDGES, methods=("Bridge",), steps=500, rates=(1e-3,), claims=(), quick_part=10),
    ),
    Compared(
        "bases",
        "Eq. 12 and other bases of a bridge",
        replace(BRIDGES, methods=BASES, claims=(("Bridge", "Bridge, fisher"),)),
    ),
    Compared(
        "heads",
        "A bridge that reads both LM heads, beside other bases and the exact KL",
        THROUGH_HEADS,
        HEADS_PANELS,
    ),
    Compared(
        "heads-bpe",
        "The same over a vocabulary of 3,072 byte pairs",
        OVER_BYTE_PAIRS,
        HEADS_PANELS,
    ),
    Pulls(
        "pulls",
        "Where bridges pull a student before training, through its own LM head",
        (
            THROUGH_HEADS.pair,
            OVER_BYTE_PAIRS.pair,
            *(item.pair for item in HEADS_ELSEWHERE.values()),
        ),
        rollouts=1000,
    ),
    *(
        Compared(name, title, HEADS_ELSEWHERE[name], HEADS_PANELS)
        for name, title in (
            ("heads-same-sums", "Heads between models of one shape, beside OPRD: sums"),
            ("heads-same-sorting", "The same on sorting"),
            ("heads-sorting", "Heads on another task, between models of another shape"),
            ("heads-untied", "Heads whose weights are not the embedding's"),
            ("heads-weaker", "Heads of a student of two layers of width 48"),
        )
    ),
    Compared("heads-then", "Table 5 with heads: they, then the output space", HEADS_THEN_OUTPUT),
    Compared(
        "heads-read-again",
        "The student's LM head moves: a bridge that reads it again, at one rate",
        HEADS_THAT_MOVE,
        LIVE_PANELS,
    ),
    Tokenizers(
        "tokenizers",
        "A teacher of other tokens: aligned states, raw ids, and its texts",
        OTHER_TOKENS,
        timed=True,
    ),
    Compared(
        "handed-over",
        "From a bridge to the output space: crossfade, switch, and both always on",
        HANDED_OVER,
        HEADS_PANELS,
    ),
    Compared(
        "handed-over-bpe",
        "The same over a vocabulary of 3,072 byte pairs",
        HANDED_OVER_BYTE_PAIRS,
        HEADS_PANELS,
    ),
    Compared(
        "ranks-bpe",
        "A bridge at whose targets the student would unlearn, at one rate",
        RANKS_OVER_BYTE_PAIRS,
        HEADS_PANELS,
    ),
    Compared("collapse", "What makes a bridge alone fall, at one rate", COLLAPSE, HEADS_PANELS),
    Compared(
        "collapse-later",
        "The bridge alone in 1,500 steps",
        COLLAPSE_LATER,
        HEADS_PANELS,
    ),
)
