"""Compares formulas with math-verify, in a process that can be killed. Run as a script.

Reads one JSON list `[gold, answer, seconds]` a line, writes one status a line: `correct`, `wrong`,
`parse_error` or `timeout`. The seconds are processor time, so that a verdict does not depend on
what else the machine does. The work is done in a forked child which its alarm kills, even in the
middle of a C call; the next child is there at once, with everything imported and the parser's
tables built.
"""

import contextlib
import json
import logging
import os
import re
import resource
import signal
import sys

from latex2sympy2_extended import math_normalization
from math_verify import LatexExtractionConfig, grader, parse, verify

from oprd.evaluation import shapes
from oprd.evaluation.exact import equal_numbers, with_fractions

# It rounds to six places, and takes for zero what is very small.
grader.sympy_numeric_eq = equal_numbers
# It drops as units what are letters and words that count, `h` of `\pi r^2 h`. This pattern has the
# group that it asks for and matches nothing.
math_normalization.units_regex = re.compile("()(?!)")
MEMORY_LIMIT = 4 << 30
# The parser builds its tables on first use, which costs more than most answers.
WARM_UP = (
    r"\left[ \frac{\pi^2}{8}, \frac{5 \pi^2}{4} \right]",
    r"(0,9) \cup (9,\infty)",
    r"\begin{pmatrix} -1/3 \\ 2\sqrt{3} \end{pmatrix}",
    r"\{1\pm\sqrt{5},-2\}",
    r"y = x^5 - 2x + 0.3",
    r"x \in [-2,7]",
)


def compare(gold: str, answer: str) -> str:
    """The status of one answer."""
    try:
        expected = _parse(gold)
        found = _parse(answer)
        if not expected or not found:
            return "parse_error"
        if shapes.differ(gold, expected[0], answer, found[0]):
            return "wrong"
        equal = verify(
            expected,
            found,
            # The other way round it is math-verify's default.
            allow_set_relation_comp=True,
            timeout_seconds=None,
            raise_on_error=True,
        )
    except Exception:  # whatever a parser does on a model's output is the answer's fault
        return "parse_error"
    return "correct" if equal else "wrong"


def serve() -> None:
    """Answer requests until the input ends."""
    for line in sys.stdin.buffer:
        gold, answer, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        status = compare(gold, answer)
        # Disarmed before the answer is out: one request, one line.
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(status + "\n")
        sys.stdout.flush()


def main() -> None:
    """Keep one child serving; a death other than by its alarm ends this process too."""
    logging.disable(logging.CRITICAL)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    for formula in WARM_UP:
        compare(formula, formula)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        child = os.fork()
        if child == 0:
            serve()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF):
            return
        sys.stdout.write("timeout\n")
        sys.stdout.flush()


def _parse(answer: str) -> list:
    parsed = parse(
        rf"\boxed{{{answer}}}",
        extraction_config=[LatexExtractionConfig()],
        fallback_mode="no_fallback",
        parsing_timeout=None,  # pyright: ignore[reportArgumentType]
        raise_on_error=True,
    )
    return [shapes.as_region(answer, with_fractions(formula)) for formula in parsed]


if __name__ == "__main__":
    main()
