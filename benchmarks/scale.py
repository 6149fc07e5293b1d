"""What an update and a step take at sizes that are not at hand, counted in operations and bytes.

python benchmarks/scale.py            # the tables of docs/scale.md
"""

from dataclasses import dataclass

GIB, TERA = 2**30, 1e12
BF16, FP32 = 2, 4
# An H100 SXM: dense bfloat16, memory, and shares of both that good code reaches; a link of
# 400 Gbit/s between nodes.
FLOPS, BANDWIDTH, LINK = 989 * TERA * 0.4, 3.35 * TERA * 0.7, 50e9 * 0.8
CARD = 80 * GIB
# Responses that are written at once on a card, where their caches fit.
AT_ONCE = 64
# Forward, and a backward pass of twice that; with checkpoints a forward pass more.
FORWARD, UPDATE, CHECKPOINTED = 1, 3, 4


@dataclass(frozen=True)
class Shape:
    """A decoder with a gated feed-forward layer.

    Attributes:
        layers: blocks.
        width: D.
        inner: of the feed-forward layer.
        heads: of queries.
        pairs: heads of keys and values.
        head: width of one.
        vocabulary: V.
        tied: whether the LM head is the embedding.
    """

    layers: int
    width: int
    inner: int
    heads: int
    pairs: int
    head: int
    vocabulary: int
    tied: bool

    @property
    def body(self) -> int:
        """Weights of the blocks, by which a token is multiplied."""
        attention = self.width * self.head * (2 * self.heads + 2 * self.pairs)
        return self.layers * (attention + 3 * self.width * self.inner)

    @property
    def table(self) -> int:
        """Weights of an embedding, or of an LM head."""
        return self.vocabulary * self.width

    @property
    def weights(self) -> int:
        """All but those of norms."""
        return self.body + self.table * (1 if self.tied else 2)

    def flops(self, tokens: int) -> float:
        """Of a forward pass through the blocks, of one sequence with a causal mask."""
        attention = 2 * self.layers * self.heads * self.head * tokens**2
        return 2 * self.body * tokens + attention

    def cache(self, tokens: int) -> int:
        """Bytes of keys and values of one sequence."""
        return 2 * self.layers * self.pairs * self.head * BF16 * tokens


SHAPES = {
    "1.5B": Shape(28, 1536, 8960, 12, 2, 128, 151936, True),
    "4B": Shape(36, 2560, 9728, 32, 8, 128, 151936, True),
    "8B": Shape(36, 4096, 12288, 32, 8, 128, 151936, False),
    "32B": Shape(64, 5120, 25600, 64, 8, 128, 151936, False),
    "70B": Shape(80, 8192, 28672, 64, 8, 128, 128256, False),
}
PAIRS = (("1.5B", "1.5B"), ("1.5B", "4B"), ("4B", "8B"), ("8B", "32B"), ("8B", "70B"))
# Those whose teacher may stand elsewhere.
SERVED = PAIRS[2:]
LENGTHS = (2048, 16384, 32768)
CARDS = (1, 8, 64)


def update(student: Shape, teacher: Shape, tokens: int) -> dict[str, float]:
    """Operations of an update on one response, by part."""
    return {
        "student": CHECKPOINTED * student.flops(tokens),
        "teacher": FORWARD * teacher.flops(tokens),
        # What output-space losses add, their softmax not counted.
        "heads": 2 * tokens * (UPDATE * student.table + teacher.table),
    }


def at_once(student: Shape, tokens: int) -> int:
    """Responses that a card writes at once beside the student's weights."""
    room = 0.9 * CARD - student.weights * BF16
    return min(AT_ONCE, int(room / student.cache(tokens)))


def writing(student: Shape, tokens: int) -> float:
    """Seconds a response on one card: of reading weights and caches, or of counting."""
    count = at_once(student, tokens)
    # A cache is half full on average.
    read = (student.weights * BF16 + count * student.cache(tokens) / 2) / BANDWIDTH
    counted = count * (student.flops(tokens) / tokens + 2 * student.table) / FLOPS
    return tokens * max(read, counted) / count


def read_layers(student: Shape, teacher: Shape) -> int:
    """The teacher's layers that are read where all of the student's are paired.

    A deeper student's meet some of them more than once.
    """
    return min(student.layers, teacher.layers)


def rows(student: Shape, teacher: Shape, tokens: int) -> int:
    """Bytes of the teacher's states at those layers, which wait for the student's."""
    return read_layers(student, teacher) * teacher.width * tokens * BF16


def training(student: Shape) -> int:
    """Bytes of weights, gradients and AdamW's moments in float32, with weights in bfloat16."""
    return student.weights * (BF16 + 4 * FP32)


def _table(head: list[str], lines: list[list[str]]) -> str:
    text = [f"| {' | '.join(cells)} |" for cells in (head, *lines)]
    return "\n".join([text[0], "|---" * len(head) + "|", *text[1:]])


def _seconds_table() -> str:
    lines = []
    for names in PAIRS:
        student, teacher = (SHAPES[name] for name in names)
        for tokens in LENGTHS:
            parts = update(student, teacher, tokens)
            took = {name: flops / FLOPS for name, flops in parts.items()}
            oprd, wrote = took["student"] + took["teacher"], writing(student, tokens)
            lines.append(
                [
                    " from ".join(names),
                    f"{tokens:,}",
                    f"{at_once(student, tokens)}",
                    f"{wrote:.2g}",
                    f"{took['teacher']:.2g}",
                    f"{took['student']:.2g}",
                    f"{took['heads'] / oprd:+.0%}",
                    f"{wrote / (wrote + oprd):.0%}",
                ]
            )
    head = [
        "student from teacher", "tokens", "at once", "writing, s", "teacher, s", "student, s",
        "output space adds to an update", "writing's share of a step",
    ]  # fmt: skip
    return _table(head, lines)


def _memory_table() -> str:
    lines = []
    for names in PAIRS:
        student, teacher = (SHAPES[name] for name in names)
        held = training(student) + teacher.weights * BF16
        need = [f"{held / cards / GIB:.3g}" for cards in CARDS]
        states = [f"{rows(student, teacher, tokens) / GIB:.1f}" for tokens in LENGTHS]
        lines.append([" from ".join(names), *need, *states])
    head = ["student from teacher"]
    head += [f"models on {cards} card{'s' if cards > 1 else ''}, GiB each" for cards in CARDS]
    head += [f"rows of {tokens:,} tokens, GiB" for tokens in LENGTHS]
    return _table(head, lines)


def _server_table() -> str:
    lines = []
    for names in SERVED:
        student, teacher = (SHAPES[name] for name in names)
        for tokens in LENGTHS:
            read = teacher.flops(tokens) / FLOPS
            every = rows(student, teacher, tokens)
            last = every / read_layers(student, teacher)
            lines.append(
                [
                    " from ".join(names),
                    f"{tokens:,}",
                    f"{read:.2g}",
                    f"{every / GIB:.1f}",
                    f"{every / LINK:.2g}",
                    f"{last / LINK:.2g}",
                    f"{16 * every / teacher.width / LINK:.2g}",
                ]
            )
    head = [
        "student from teacher", "tokens", "reading, s", "paired layers, GiB", "their way, s",
        "last layer, s", "all through rank 16, s",
    ]  # fmt: skip
    return _table(head, lines)


def main() -> None:
    """Print the tables."""
    print(_seconds_table(), _memory_table(), _server_table(), sep="\n\n")


if __name__ == "__main__":
    main()
