import io
import json
from dataclasses import replace

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
        *("before", "after", "Avg@2", "50.0% [", "Best@2", "66.7%", "maj@2", "Dist-4g", "6 of 6"),
        *("version 1, h", "temperature 0.7", "What is 2 + 3?"),
        "after − before: +50.0 points [",
        "2 won, 0 lost, 1 equal",
    ):
        assert part in text


def test_every_status_has_a_row_and_what_all_models_share_is_said_once() -> None:
    lines = printed(BEFORE, replace(AFTER, header={**AFTER.header, "weights": "v"})).splitlines()
    rows = {cells[1].strip(): cells[2:-1] for line in lines if (cells := line.split("│"))[1:]}
    assert [[cell.strip() for cell in rows[name]] for name in ("correct", "wrong", "weights")] == [
        ["0", "3"],
        ["6", "3"],
        ["w", "v"],
    ]
    assert lines.count("dtype: float32") == 1


def test_figures_that_are_the_same_with_one_sample_are_shown_once() -> None:
    text = printed(evaluation({"a": [True], "b": [False]}))
    assert "Avg@1" in text and "Best@1" not in text and "solved never" not in text


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
