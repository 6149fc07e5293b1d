import io
import json

from rich.console import Console

from oprd.evaluation.table import plain, print_report, to_json, to_markdown
from tests.evaluation.samples import evaluation

VERDICTS = {"a": [True, False], "b": [True, True], "c": [False, False]}
BEFORE = evaluation({p: [False, False] for p in VERDICTS}, model="before")
AFTER = evaluation(VERDICTS, model="after")
EVIL = "[red]x[/red]\x1b[31m<script>|`*\r"


def printed(*evaluations) -> str:
    console = Console(file=io.StringIO(), width=200)
    print_report(evaluations, console)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_table_says_what_a_reader_needs() -> None:
    text = printed(BEFORE, AFTER)
    for part in (
        *("before", "after", "Avg@2", "50.0% [", "Best@2", "66.7%", "maj@2", "Dist-4g", "6 / 6"),
        *("correct 3, wrong 3", "version 1, h", "temperature 0.7", "What is 2 + 3?"),
        "after − before: +50.0% [",
        "2 won, 0 lost, 1 equal",
    ):
        assert part in text


def test_the_json_holds_the_figures_of_the_table() -> None:
    found = json.loads(json.dumps(to_json([BEFORE, AFTER])))
    assert found["evaluations"][1]["figures"]["average"]["value"] == 0.5
    assert found["evaluations"][1]["obtained"] == 6
    assert found["comparisons"][0]["difference"]["value"] == 0.5


def test_the_markdown_is_a_table() -> None:
    lines = to_markdown([BEFORE, AFTER]).splitlines()
    assert lines[2] == "|  | before | after |"
    assert "| --- |" in lines[3]
    assert any(line.startswith(r"| Avg@2 | 0.0% \[0.0, ") for line in lines)


def test_nothing_in_the_output_steers_terminal_or_page() -> None:
    evil = evaluation(VERDICTS, model=EVIL, task=EVIL, prompt=EVIL, revision=EVIL)
    text = printed(evil)
    assert "[red]x[/red]" in text and "\x1b" not in text and "\r" not in text
    page = to_markdown([evil])
    assert "<script>" not in page and "\x1b" not in page and r"\|" in page
    assert plain("a\x1bb\nc") == r"a\x1bb\nc"
