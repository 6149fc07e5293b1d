import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from oprd.evaluation.result import Evaluation
from oprd.evaluation.table import cell, plain, print_report, rows_and_notes, to_json, to_markdown
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


def several(*shares: list[bool]) -> list[Evaluation]:
    """Evaluations on problems of one sample each."""
    return [
        evaluation({f"p{n}": [right] for n, right in enumerate(share)}, model=f"m{number}")
        for number, share in enumerate(shares)
    ]


def test_several_comparisons_are_corrected_and_the_table_says_so() -> None:
    found = several([False] * 40, [True] * 5 + [False] * 35, [True] * 40)
    text = printed(*found)
    assert "m1 − m0: +12.5 points" in text
    assert "p = 0.0625, corrected for 3 comparisons = 0.0625" in text
    assert "p < 0.0002, corrected for 3 comparisons < 0.0006" in text
    assert "corrected by Holm for the comparisons of a table" in text
    assert [one["p_holm"] for one in to_json(found)["comparisons"]] == pytest.approx(
        [0.0625, 0.0006, 0.0006]
    )
    alone = printed(*found[:2])
    assert "5 won, 0 lost, 35 equal, p = 0.0625\n" in alone


@pytest.mark.parametrize(("wins", "p"), [(16, "p = 0.00003"), (14, "p = 0.0001"), (8, "0.0078")])
def test_an_exact_p_is_never_shown_as_none(wins: int, p: str) -> None:
    text = printed(*several([False] * 20, [True] * wins + [False] * (20 - wins)))
    assert f"{p}\n" in text


@pytest.mark.parametrize("correct", [True, False])
def test_a_vote_without_answers_has_no_figure(correct: bool) -> None:
    found = evaluation({p: [correct, correct] for p in "abc"})
    silent = Evaluation(found.header, [replace(r, extracted=None) for r in found.records])
    one = Evaluation(found.header, [*silent.records[:-1], found.records[-1]])
    shown = dict(rows_and_notes([silent])[0])
    assert shown["maj@2"] == "–" and "maj@2" not in silent.figures()
    assert to_json([silent])["evaluations"][0]["figures"]["majority"] is None
    assert dict(rows_and_notes([one])[0])["maj@2"].startswith("33.3%" if correct else "0.0%")


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


def test_quotes_are_text_in_markdown():
    assert cell('the student\'s "own" & <b>') == 'the student\'s "own" &amp; &lt;b&gt;'
