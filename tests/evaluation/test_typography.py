import pytest
from hypothesis import given
from hypothesis import strategies as st

from oprd.evaluation.typography import plain_latex


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("5½", r"5\frac{1}{2}"),
        ("³⁄₁₆", r"\frac{3}{16}"),
        ("√2⁄2", r"\sqrt{2}/2"),
        ("√√(x+1)", r"\sqrt{\sqrt{x+1}}"),
        ("³√8", r"\sqrt[3]{8}"),
        ("x²y¹⁰z₁", "x^2y^{10}z_1"),
        ("10⁻³", "10^{-3}"),
        ("７３％", "73%"),
        ("٧٣", "73"),
        ("𝟕𝟑", "73"),
        ("−5−x", "-5-x"),
        ("1\u202f234", r"1\,234"),
        ("7\u200b3", "73"),
        ("2πr ≤ ∞", r"2\pi r \leq \infty "),
        ("0.3\u0305", "0.3\u0305"),
    ],
)
def test_unicode_is_spelled_out(answer, plain):
    assert plain_latex(answer) == plain


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        ("**73** cm", "73 cm"),
        ("***73***", "73"),
        ("_73_.", "73."),
        ("`73`", "73"),
        ("<b>73</b>", "73"),
        ("2**10", "2^{10}"),
        ("2*3*4", "2*3*4"),
        ("a_1 + b_1", "a_1 + b_1"),
        ("1<b<2", "1<b<2"),
        ("~~73~~", "~~73~~"),
    ],
)
def test_emphasis_goes_and_operators_stay(answer, plain):
    assert plain_latex(answer) == plain


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (r"\frac{\color{red}7}{2}", r"\frac{7}{2}"),
        (r"x^\textcolor{red}{2}", "x^{2}"),
        (r"\textcolor[rgb]{1,0,0}{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"4\boldsymbol{2}", "42"),
        (r"\pi\boldsymbol{x}", r"\pi x"),
        (r"5 {\rm cm}", r"5 \text{cm}"),
        (r"\left\lbrace 1, \bigl(2\bigr) \right\rbrace", r"\{ 1, (2) \}"),
        (r"\frac {12} {35}", r"\frac {12} {35}"),
    ],
)
def test_colours_fonts_and_sizes_go_and_arguments_keep_their_braces(answer, plain):
    assert plain_latex(answer) == plain


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (r"\begin{align*} x &= 3 + 4 \\ &= 7 \end{align*}", "x = 3 + 4 = 7"),
        (r"\begin{aligned} x &= 1, \\ y &= 2. \end{aligned}", "x = 1, y = 2"),
        (r"\left\{\begin{array}{l} x=1 \\ y=2 \end{array}\right.", "x=1, y=2"),
        (
            r"\begin{gathered} \begin{pmatrix} 1 \\ 2 \end{pmatrix} \end{gathered}",
            r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        ),
        (r"\begin{array}{cc} 1 & 2 \\ 3 & 4 \end{array}",) * 2,
        (r"\begin{cases} x & x>0 \\ -x & x<0 \end{cases}",) * 2,
    ],
)
def test_lines_are_a_list_or_a_chain_and_matrices_and_cases_stay(answer, plain):
    assert plain_latex(answer).strip() == plain


@pytest.mark.parametrize(
    ("answer", "plain"),
    [
        (r"\varnothing", r"\emptyset"),
        (r"{5 \choose 2}", r"{\binom{5}{2}}"),
        (r"n+1 \choose {k}", r"\binom{n+1}{{k}}"),
        (r"\frac{{a \choose b} \choose 2}{3}", r"\frac{\binom{{\binom{a}{b}}}{2}}{3}"),
    ],
)
def test_other_names_of_the_same_are_one(answer, plain):
    assert plain_latex(answer) == plain


def test_a_dollar_is_kept_and_what_sets_mathematics_off_is_not():
    assert plain_latex(r"\$5") == r"\textdollar 5"
    assert plain_latex(plain_latex(r"\$5")) == r"\textdollar 5"
    assert plain_latex("$5$") == "5"
    assert plain_latex(r"x \\$y$") == r"x \\y"


@given(st.text() | st.text(alphabet="\\{}[]()$*_^&<>√²½ abcfrtx1", max_size=60))
def test_no_text_is_too_strange(answer):
    assert isinstance(plain_latex(answer), str)
