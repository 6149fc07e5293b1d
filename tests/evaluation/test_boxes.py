import pytest

from oprd.evaluation.boxes import Box, last_box


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed 73", "73"),
        (r"\boxed73.", "73"),
        (r"$\boxed x^2$ is", "x^2"),
        (r"so \boxed 7 is the answer", "7"),
        (r"so \boxed -1,234.5 it is", "-1,234.5"),
        (r"\boxed\frac12", r"\frac12"),
        (r"it is \boxed \frac{1}{\sqrt{2}} then", r"\frac{1}{\sqrt{2}}"),
        (r"\begin{aligned} x &= \boxed 7 \\ &\text{as said} \end{aligned}", "7"),
        (r"{\color{red}\boxed 7} in red", "7"),
        (r"\boxed{5}, then \boxed 6", "6"),
        (r"\boxed{5} is the \boxed answer", "5"),
        (r"\boxed{5} ends with \boxed", "5"),
        (r"\boxed answer", None),
        (r"\boxed", None),
        (r"\boxed $", None),
    ],
)
def test_a_box_without_braces_holds_the_formula_that_follows_it(text, content):
    assert last_box(text) == Box(content)


def test_an_open_brace_after_it_is_still_an_answer_that_was_being_written():
    assert last_box(r"\boxed 5 and \boxed{6") == Box(None, unterminated=True)
