"""A report is one file that says what was trained, whether it worked and how to run it again."""

import csv
import json
import os
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from oprd.evaluation.records import rewrite_records
from oprd.reports import page
from oprd.reports.figure import styled
from oprd.reports.markdown import markdown
from oprd.reports.pictures import of_run, of_runs, write_pngs
from oprd.reports.table import write_csv
from oprd.reports.told import read
from oprd.runs.folder import read_run
from oprd.runs.lock import RunLock
from tests.evaluation.samples import header
from tests.reports.made import line, record_of, write_metrics, write_run

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)> `x` $\\frac$ {{ 7 * 7 }} "
    "\x1b[31mred\x1b[0m \u202ereversed | _a_ [b](http://c) \ud800"
)
ALLOWED = {
    *("html", "head", "meta", "link", "title", "style", "body", "header", "small", "h1", "h2"),
    *("h3", "p", "span", "nav", "a", "bdi", "div", "table", "thead", "tbody", "tr", "th", "td"),
    *("dl", "dt", "dd", "details", "summary", "pre", "code", "ul", "li", "figure", "figcaption"),
    *("section", "footer", "mark", "svg", "g", "path", "defs", "clippath", "rect", "use", "text"),
    *("image", "pattern"),
}


class Reader(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text += data


def test_a_page_says_what_was_run_whether_it_worked_and_how_to_run_it_again(tmp_path):
    shown = Reader(page.html(read([read_run(write_run(tmp_path / "mine"))])))
    for text in (
        "Finished. 20 steps.",
        "The student, student, wrote responses to 100 prompts from additions;",
        "+25.0 points [+8.3, +45.8]. The teacher solves 75.0%.",
        "100 from additions, chat messages",
        "1 × mse of states",
        "additions, Avg@1",
        "25.0 → 50.0 %, teacher 75.0 %",
        "student after − student before: +25.0 points",
        "Agreement by layer",
        "Agreement by position",
        "Entropy of the next token",
        "Shared likeliest tokens",
        "entropy (nats)",
        "1.2 min",
        "3.2 GiB",
        "40 tokens, 39 written by the student, 35 supervised",
        "model='path/to/student'",
    ):
        assert text in shown.text, text


def test_a_page_loads_nothing_and_runs_nothing(tmp_path):
    text = page.html(read([read_run(write_run(tmp_path / "mine"))]))
    shown = Reader(text)
    assert shown.tags <= ALLOWED
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    links = [value for name, value in shown.attributes if name in ("src", "href", "xlink:href")]
    assert all(value and value.startswith(("#", "data:")) for value in links)
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\((?!#)", text)


def test_pictures_of_a_page_have_names_of_their_own(tmp_path):
    runs = [read_run(write_run(tmp_path / name)) for name in ("a", "b")]
    ids = Reader(page.html(read(runs))).ids
    assert len(ids) == len(set(ids)) > 50


def hostile_run(folder):
    task = "".join(c for c in HOSTILE if c != "\ud800")
    return write_run(
        folder / "<b>&\x1b[1m$_",
        text=HOSTILE,
        task=task,
        student=HOSTILE,
        teacher=HOSTILE,
        dataset=HOSTILE,
        teacher_base=HOSTILE,
        versions={HOSTILE: HOSTILE},
        asked={HOSTILE: HOSTILE},
        bridges={HOSTILE: {"rank": HOSTILE}},
        settings={"layers": HOSTILE, "state_loss": HOSTILE, "stages": None},
    )


@pytest.mark.parametrize("of", [1, 2])
def test_hostile_text_is_text_in_a_page(tmp_path, of):
    runs = [read_run(hostile_run(tmp_path / str(n))) for n in range(of)]
    text = page.html(read(runs))
    text.encode()
    shown = Reader(text)
    assert shown.tags <= ALLOWED
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert "<script>alert(1)</script>" in shown.text and "{{ 7 * 7 }}" in shown.text
    assert not {"\x1b", "\u202e"} & set(text)
    assert "\\x1b[31m" in shown.text and "\\u202e" in shown.text


def test_hostile_text_is_text_in_markdown_and_in_a_table(tmp_path):
    run = read_run(hostile_run(tmp_path))
    told = markdown(read([run]))
    assert "<script>" not in told and "\x1b" not in told
    assert not re.search(r"(?<!\\)\](?=[(\[])", told)
    assert "&lt;script&gt;" in told
    lines = [{**line(1), '=cmd|"/c calc"!A1': 1}, {**line(2), "note": "@SUM(1)"}]
    write_metrics(run.path, lines)
    write_csv(read([read_run(run.path)]), tmp_path / "all.csv")
    table = (tmp_path / "all.csv").read_text()
    assert not [c for row in csv.reader(table.splitlines()) for c in row if c[:1] in ("=", "@")]
    assert "\x1b" not in table


def test_a_table_holds_every_figure_of_every_run(tmp_path):
    runs = [read_run(write_run(tmp_path / name, steps=4)) for name in ("a", "b")]
    write_csv(read(runs), tmp_path / "all.csv")
    with (tmp_path / "all.csv").open() as opened:
        rows = list(csv.DictReader(opened))
    losses = [(row["run"], row["step"], row["loss"]) for row in rows if row["loss"]]
    assert losses == [(r.name, str(n), str(line(n)["loss"])) for r in runs for n in range(1, 5)]


@pytest.mark.parametrize("make", ["empty", "foreign", "damaged", "cut off", "running", "no log"])
def test_a_folder_that_is_no_finished_run_is_shown_as_what_it_is(tmp_path, make):
    folder = tmp_path / "odd"
    if make in ("cut off", "running"):
        write_run(folder, ended=False)
        with (folder / "metrics.jsonl").open("a") as opened:
            opened.write('{"step": 21, "loss": 0.')
    else:
        folder.mkdir()
    if make == "foreign":
        (folder / "metrics.jsonl").write_text('[1, 2]\n{"loss": 3}\n"x"\n\xff\n')
    if make == "damaged":
        (folder / "run.json").write_text("{")
    if make == "no log":
        (folder / "run.json").write_text(json.dumps({"student": "s", "settings": None}))
    with RunLock(folder) if make == "running" else nullcontext():
        run = read_run(folder)
    states = {"foreign": "not a run", "no log": "cut off"}
    assert run.state == states.get(make, make)
    assert run.note in Reader(page.html(read([run]))).text
    # Beside one that is whole too.
    both = Reader(page.html(read([run, read_run(write_run(tmp_path / "whole"))])))
    assert run.note in both.text and "20 steps" in both.text
    assert markdown(read([run]))
    write_csv(read([run]), tmp_path / "all.csv")
    write_pngs([run], tmp_path / "png")


def test_values_that_are_no_numbers_leave_gaps(tmp_path):
    folder = write_run(tmp_path / "mine")
    odd = [{"loss": float("nan")}, {"loss": "x"}, {"loss": None}, {"rep_cosine": float("inf")}]
    write_metrics(folder, [line(n, **other) for n, other in enumerate(odd, 1)])
    shown = Reader(page.html(read([read_run(folder)]))).text
    assert "The loss was not finite at step 1." in shown


def test_an_evaluation_that_cannot_be_read_is_named(tmp_path):
    folder = write_run(tmp_path / "mine")
    (folder / "samples" / "broken.jsonl").write_text("{}\n{}\n")
    cut = (folder / "samples" / "teacher.jsonl").read_text().splitlines()[:-2]
    (folder / "samples" / "teacher.jsonl").write_text("\n".join(cut) + "\n")
    shown = Reader(page.html(read([read_run(folder)]))).text
    assert "samples/broken.jsonl:" in shown
    assert "24 samples were asked for and 22 obtained" in shown


def test_evaluations_of_other_problems_are_no_table_together(tmp_path):
    """Also where a file of an older version has no hash of its problems."""
    folder = write_run(tmp_path / "mine")
    records = [record_of(str(n), "x", n % 2 == 0) for n in range(24)]
    file = folder / "samples" / "student after.jsonl"
    rewrite_records(file, header(model="student after", asked=24, task="additions"), records)
    tables = read([read_run(folder)]).pages[0].tables
    assert [[row.model for row in table.rows] for table in tables] == [
        ["teacher", "student before"], ["student after"]
    ]  # fmt: skip


def test_every_picture_is_a_file_for_a_paper(tmp_path):
    runs = [read_run(write_run(tmp_path / name)) for name in ("a", "b")]
    files = write_pngs(runs, tmp_path / "png")
    names = {file.name for file in files}
    assert {"loss.png", "cosine.png", "layers-A.png", "positions-B.png", "task-1.png"} <= names
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_every_axis_says_what_it_shows(tmp_path):
    run = read_run(write_run(tmp_path / "mine"))
    with styled():
        for picture in [*of_runs([run], legend=False), *of_run(run)]:
            axes = picture.figure.axes[0]
            assert axes.get_title(loc="left") and axes.get_xlabel(), picture.name
            assert axes.get_ylabel() or picture.name == "cost", picture.name


def test_an_axis_over_many_sizes_has_plain_numbers(tmp_path):
    folder = write_run(tmp_path / "mine")
    write_metrics(folder, [line(n, loss=10.0 ** (-n / 4), grad_norm=2.0**-n) for n in range(1, 9)])
    text = page.html(read([read_run(folder)]))
    assert "mathdefault" not in text and ">0.1</text>" in text and ">0.02</text>" in text


def test_the_same_folders_give_the_same_page(tmp_path):
    folder = write_run(tmp_path / "mine")
    assert page.html(read([read_run(folder)])) == page.html(read([read_run(folder)]))


def test_ten_long_runs_take_seconds_and_a_small_file(tmp_path):
    folders = [write_run(tmp_path / f"run-{n}", steps=2000) for n in range(10)]
    before = time.process_time()
    text = page.html(read([read_run(folder) for folder in folders]))
    # Of this process alone, whatever else the machine does; the command's own time is a slow test.
    assert time.process_time() - before < 10
    assert len(text.encode()) < 3_000_000


@pytest.mark.slow
def test_the_command_reports_on_ten_long_runs_within_ten_seconds(tmp_path):
    """By the clock on the wall, with three models on 100 problems, 4 samples each, in every run."""
    if os.getloadavg()[0] > (os.cpu_count() or 1):
        pytest.skip("the machine is busy with other work: the clock on the wall would tell of that")
    folders = [write_run(tmp_path / f"run-{n}", steps=2000) for n in range(10)]
    for folder in folders:
        for number, model in enumerate(("teacher", "student before", "student after")):
            records = [
                replace(record_of(str(n), "x" * 400, (n * 7 + s) % 9 < 3 + number), sample=s)
                for n in range(100)
                for s in range(4)
            ]
            file = folder / "samples" / f"{model}.jsonl"
            rewrite_records(file, header(model=model, asked=400, task="additions"), records)
    command = [sys.executable, "-m", "oprd", "report", *map(str, folders), "--output", "all.html"]
    before = time.monotonic()
    subprocess.run(command, cwd=tmp_path, check=True, timeout=240, capture_output=True)
    assert time.monotonic() - before < 10
    assert (tmp_path / "all.html").stat().st_size < 3_000_000
