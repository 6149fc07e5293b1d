"""Which quantities of a log are drawn as lines by step, with what they are called."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Panel:
    """A picture of lines by step.

    Attributes:
        name: of its file.
        title: of the picture.
        unit: of its vertical axis.
        curves: keys of the log, with what each is called.
        log: whether the axis is logarithmic where values span more than a factor of 20.
        about: what a reader should know.
    """

    name: str
    title: str
    unit: str
    curves: tuple[tuple[str, str], ...]
    log: bool = False
    about: str = ""

    @property
    def pale(self) -> str:
        """The quantity that is drawn paler where there are several runs, if any."""
        return next((name for _, name in self.curves[1:]), "")


PANELS = (
    Panel("loss", "Loss", "loss", (("loss", "loss"),), log=True),
    Panel(
        "terms",
        "Terms of the loss, before their weights",
        "loss",
        (("loss/representation", "representation"), ("loss/output", "output")),
        log=True,
    ),
    Panel(
        "cosine",
        "Agreement of states",
        "cosine",
        (("rep_cosine", "mean of layers"),),
        about="Cosine of student and teacher states at supervised positions, mean over layers.",
    ),
    Panel(
        "entropy",
        "Entropy of the next token",
        "entropy (nats)",
        (
            ("diagnostics/student_entropy", "student"),
            ("diagnostics/teacher_entropy", "teacher"),
        ),
    ),
    Panel(
        "overlap",
        "Shared likeliest tokens",
        "share of the top 16",
        (("diagnostics/top16_overlap", "overlap"),),
    ),
    Panel(
        "divergence",
        "Divergence from the teacher",
        "KL(student‖teacher) (nats)",
        (("diagnostics/reverse_kl", "reverse KL"),),
        log=True,
    ),
    Panel(
        "length",
        "Length of responses",
        "tokens",
        (("completions/mean_length", "mean"),),
    ),
    Panel(
        "clipped",
        "Responses that reached the limit",
        "share of responses",
        (("completions/clipped_ratio", "reached the limit"),),
    ),
    Panel(
        "gradient",
        "Gradient norm before clipping",
        "L2 norm",
        (("grad_norm", "norm"),),
        log=True,
    ),
    Panel("rate", "Learning rate", "learning rate", (("learning_rate", "rate"),)),
    Panel(
        "drift",
        "Drift from the student that wrote",
        "KL (nats)",
        (("drift_kl", "drift"),),
    ),
    Panel(
        "speed",
        "Throughput",
        "tokens per second",
        (("tokens_per_second", "tokens/s"),),
    ),
)
