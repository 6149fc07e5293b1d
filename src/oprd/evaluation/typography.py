r"""Bring an answer to plain LaTeX: Unicode, Markdown, colours, fonts and environments spelled out.

What an answer says does not depend on how it is set. Nothing is evaluated here, and what is plain
already comes back as it was.
"""

import re
import unicodedata

from oprd.evaluation.boxes import GROUP

# A dollar sign alone sets mathematics off.
DOLLAR = re.compile(r"(?<!\\)\\\$")
# Before compatibility forms are taken, which would lose them.
SIGNS = {
    "−‐‑‒–": "-",
    "×✕✖⨯": r"\times ",
    "·⋅∙•‧・∗": r"\cdot ",
    # The signs of units, which are other characters than the letters.
    "µ": "u",
    "\u2126": " Ohm",
    "÷": r"\div ",
    "∕⁄": "/",
    "∶": ":",
    "±": r"\pm ",
    "∓": r"\mp ",
    "≤≦⩽": r"\leq ",
    "≥≧⩾": r"\geq ",
    "≠": r"\neq ",
    "≈": r"\approx ",
    "≡": r"\equiv ",
    "∞": r"\infty ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "∉": r"\notin ",
    "∅": r"\emptyset ",
    "∖": r"\setminus ",
    "⊂": r"\subset ",
    "⊆": r"\subseteq ",
    "∧": r"\land ",
    "∨": r"\lor ",
    "¬": r"\neg ",
    "∑": r"\sum ",
    "∏": r"\prod ",
    "∫": r"\int ",
    "→": r"\to ",
    "∠": r"\angle ",
    "△": r"\triangle ",
    "°º˚": r"^\circ ",
    "′’‘": "'",
    "″": "''",
    "…": r"\ldots ",
    "⟨〈": r"\langle ",
    "⟩〉": r"\rangle ",
    "⌊": r"\lfloor ",
    "⌋": r"\rfloor ",
    "⌈": r"\lceil ",
    "⌉": r"\rceil ",
    "∣": "|",
    "、": ",",
    "。": ".",
    "ℝ": r"\mathbb{R}",
    "ℚ": r"\mathbb{Q}",
    "ℤ": r"\mathbb{Z}",
    "ℕ": r"\mathbb{N}",
    "ℂ": r"\mathbb{C}",
    # As thousands marks, unlike the space of a keyboard.
    "\u2008\u2009\u200a\u202f": r"\,",
    "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u2064\ufe0e\ufe0f\ufeff": "",
}
# Capitals that look like Latin ones have no macro.
GREEK = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau "
    "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"
)
LETTERS = {
    unicodedata.lookup(
        f"GREEK {'SMALL' if name.islower() else 'CAPITAL'} LETTER "
        + name.upper().replace("LAMBDA", "LAMDA")
    ): rf"\{name} "
    for name in GREEK.split()
}
TABLE = str.maketrans({sign: latex for signs, latex in SIGNS.items() for sign in signs} | LETTERS)
SUPERSCRIPT = "²³¹\u2070-\u207f"
SUBSCRIPT = "\u2080-\u209c"
SMALL_FRACTION = re.compile(rf"([{SUPERSCRIPT}]+)⁄([{SUBSCRIPT}]+)")
FRACTION = re.compile(r"(?<![√\d])(\d+)\s*⁄\s*(\d+)")
VULGAR_FRACTION = re.compile("[¼½¾⅐-⅞↉]")
ROOTS = {"√": r"\sqrt", "∛": r"\sqrt[3]", "∜": r"\sqrt[4]"}
PARENTHESES = r"\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)"
ROOT = re.compile(
    rf"([√∛∜])\s*(?:{PARENTHESES}|(\d+(?:\.\d+)?|[a-zA-Z]|\\[a-zA-Z]+(?:\{{[^{{}}]*\}})*|(?=\{{)))"
)

HTML = re.compile(r"<(b|i|u|em|strong|span|font|mark|code)(?:\s[^<>]*)?>(.*?)</\1>", re.DOTALL)
# `2**3` is a power.
BOLD = re.compile(r"(?<![\w*)}\]])(\*\*\*?|___?)(?=[^\s*_])([^*_]+)(?<=\S)\1(?![\w*({\[])")
POWER = re.compile(r"(?<=[\w)}\]])\s*\*\*\s*([+-]?\w+)")
EMPHASIS = re.compile(r"\s*(\*|_|`+)(?=[^\s*_`])([^*_`]+)(?<=\S)\1\s*([.,;:]?)\s*")

COLOUR = (
    r"\\(?:color|textcolor|mathcolor|colorbox|style|class)(?![a-zA-Z])\s*(?:\[[^\[\]]*\])?\s*"
    r"\{[^{}]*\}|\\fcolorbox\s*(?:\[[^\[\]]*\])?\s*\{[^{}]*\}\s*\{[^{}]*\}|\\bbox\s*\[[^\[\]]*\]"
)
TEXT_FONT = re.compile(r"\\(?:textsf|texttt|textsc|textsl|textup|emph)(?=\s*\{)")
# `{\rm cm}` is words, as `\text{cm}` is.
FONT_OF_GROUP = re.compile(r"\{\s*\\(?:bf|it|rm|sf|tt|bfseries|itshape|rmfamily)\s+([^{}\\]*)\}")
SWITCH = (
    r"\\(?:boldsymbol|bm|pmb|bold|mathit|mathsf|mathtt|mathnormal|ensuremath|underline"
    r"|displaystyle|textstyle|scriptstyle|scriptscriptstyle|limits|tiny|scriptsize|footnotesize"
    r"|small|normalsize|large|Large|LARGE|huge|Huge|bf|it|rm|sf|tt|bfseries|itshape|rmfamily"
    r"|nonumber|notag|hfill|noindent|centering|hline)(?![a-zA-Z])"
)
LAYOUT = re.compile(rf"{COLOUR}|{SWITCH}")
# Stands for a layout macro until the braces that belong to it are gone too.
MARK = "\0"
MARKED_ARGUMENT = re.compile(rf"(?<![\^_]){MARK}\s*({GROUP})")
# Not where the braces hold a macro's argument, an index or an exponent.
MARKED_GROUP = re.compile(rf"(?<![\w}}\]^])\{{\s*{MARK}((?:[^{{}}]|{GROUP})*)\}}")
# Not those that are abbreviations of units too: `\text{min}`, `\text{sec}`.
FUNCTION = re.compile(
    r"\\(?:operatorname|mathrm|mathop|text)\s*\{\s*"
    r"((?:arc)?(?:sin|cos|tan)|sinh|cosh|tanh|cot|csc|log|ln|gcd|lcm)\s*\}"
)
EMPTY_SET = re.compile(r"\\varnothing(?![a-zA-Z])")
CHOOSE = re.compile(
    rf"\{{((?:[^{{}}]|{GROUP})*?)\s*\\choose(?![a-zA-Z])\s*((?:[^{{}}]|{GROUP})*)\}}"
)
INVISIBLE = re.compile(r"\\(?:hspace|vspace|phantom|hphantom|vphantom|tag|label)\*?\s*\{[^{}]*\}")
THIN_SPACE = re.compile(r"\\(?:thinspace(?![a-zA-Z])|>)")
DELIMITER_SIZE = re.compile(r"\\(?:[bB]igg?[lrm]?|middle|left|right)(?![a-zA-Z])\s*")
OPEN_DELIMITER = re.compile(r"\\left\s*(?:\.|\\\{\s*(?=\\begin))|\\right\s*\.")
NAMED_DELIMITER = re.compile(r"\\([lr])(brace|paren|brack|vert)(?![a-zA-Z])")
DELIMITERS = {"brace": (r"\{", r"\}"), "paren": "()", "brack": "[]", "vert": "||"}

ENVIRONMENT = re.compile(
    r"\\begin\s*\{((?:aligned|align|alignedat|alignat|array|cases|eqnarray|equation|flalign|gather"
    r"|gathered|multline|split|center|displaymath|math)\*?)\}((?:(?!\\begin\s*\{\1\}).)*?)"
    r"\\end\s*\{\1\}",
    re.DOTALL,
)
ENVIRONMENT_ARGUMENTS = re.compile(r"\s*(?:\[[^\[\]]*\])?\s*(?:\{[^{}]*\})?")
NEW_ROW = re.compile(r"\\\\\s*(?:\[[^\[\]]*\])?")
RELATION = r"(?:[=<>]|\\(?:leq?|geq?|neq?|lt|gt|approx|equiv|in)(?![a-zA-Z]))"
CONTINUED = re.compile(rf"\s*{RELATION}")
ALIGNMENT = re.compile(rf"&\s*(?={RELATION})|(?<==)\s*&|^\s*&|&\s*$")


def plain_latex(answer: str) -> str:
    """An answer in LaTeX of ASCII signs, as far as they have any, without what only sets it."""
    answer = DOLLAR.sub(r"\\textdollar ", answer).replace("$", "")
    if not answer.isascii():
        answer = _spelled(answer)
    # Of a run of spaces one says as much, and costs a pattern less.
    return _without_layout(_without_markup(re.sub(r"\s+", " ", answer)))


def _spelled(text: str) -> str:
    """Unicode as LaTeX."""
    text = SMALL_FRACTION.sub(
        lambda match: rf"\frac{{{_nfkc(match[1])}}}{{{_nfkc(match[2])}}}", text
    )
    text = text.replace("³√", "∛").replace("⁴√", "∜")
    text = re.sub(rf"[{SUPERSCRIPT}]+", lambda match: "^" + _index(match[0]), text)
    text = re.sub(rf"[{SUBSCRIPT}]+", lambda match: "_" + _index(match[0]), text)
    # Beside a whole number it is the rest of a mixed one.
    text = VULGAR_FRACTION.sub(lambda match: FRACTION.sub(r"\\frac{\1}{\2}", _nfkc(match[0])), text)
    text = FRACTION.sub(r"\\frac{\1}{\2}", text)
    text = _nfkc(text.translate(TABLE)).translate(TABLE)
    # Digits of any script.
    text = re.sub(r"\d", lambda match: str(int(match[0])), text)
    while (rooted := ROOT.sub(_root, text)) != text:
        text = rooted
    return text


def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


def _index(signs: str) -> str:
    index = _nfkc(signs).translate(TABLE)
    return index if len(index) == 1 else f"{{{index}}}"


def _root(match: re.Match[str]) -> str:
    radicand = match[2] if match[2] is not None else match[3]
    # A brace that follows is the argument already.
    return ROOTS[match[1]] + (f"{{{radicand}}}" if radicand else "")


def _without_markup(text: str) -> str:
    """A text without Markdown's and HTML's emphasis."""
    text = HTML.sub(r"\2", text)
    text = BOLD.sub(r"\2", text)
    match = EMPHASIS.fullmatch(text)
    text = match[2] + match[3] if match else text
    return POWER.sub(r"^{\1}", text)


def _without_layout(text: str) -> str:
    r"""A formula without colours, fonts, sizes, invisible boxes and environments for lines."""
    if "\\" not in text:
        return text
    text = FONT_OF_GROUP.sub(r"\\text{\1}", TEXT_FONT.sub(r"\\text", text))
    text = LAYOUT.sub(MARK, INVISIBLE.sub(" ", FUNCTION.sub(r"\\\1 ", text)))
    while (bare := MARKED_GROUP.sub(r" \1", MARKED_ARGUMENT.sub(_unwrapped, text))) != text:
        text = bare
    text = re.sub(rf"(?<=[a-zA-Z]){MARK}", " ", text).replace(MARK, "")
    text = DELIMITER_SIZE.sub("", OPEN_DELIMITER.sub("", THIN_SPACE.sub(r"\\,", text)))
    text = NAMED_DELIMITER.sub(lambda match: DELIMITERS[match[2]][match[1] == "r"], text)
    while (unwrapped := ENVIRONMENT.sub(_lines, text)) != text:
        text = unwrapped
    return _with_binomials(EMPTY_SET.sub(r"\\emptyset", text))


def _with_binomials(text: str) -> str:
    r"""A formula with `{n \choose k}` as `\binom{n}{k}`, in its braces; a box is in some, too."""
    while r"\choose" in text:
        found = CHOOSE.sub(r"{\\binom{\1}{\2}}", text)
        if found == text:
            return CHOOSE.sub(r"\\binom{\1}{\2}", f"{{{text}}}", count=1)
        text = found
    return text


def _unwrapped(match: re.Match[str]) -> str:
    before = match.string[: match.start()]
    return (" " if before[-1:].isalpha() else "") + match[1][1:-1]


def _lines(match: re.Match[str]) -> str:
    """The lines of an environment as a list, or as a chain where a line goes on with a relation.

    An array of numbers is a matrix, and cases with conditions are a function: both stay.
    """
    body = ENVIRONMENT_ARGUMENTS.sub("", match[2], count=1)
    rows = [body] if r"\begin" in body else NEW_ROW.split(body)
    lines = [line for row in rows if (line := ALIGNMENT.sub("", row).strip())]
    tabular = len(lines) > 1 and not all(re.search(RELATION, line) for line in lines)
    if match[1] in ("array", "cases") and (tabular or any("&" in line for line in lines)):
        return match[0]
    text = ""
    for line in lines:
        parting = " " if not text or CONTINUED.match(line) else ", "
        text = text.rstrip(" ,;.") + parting + line.replace("&", " ")
    return f" {text.strip(' ,;.')} "
