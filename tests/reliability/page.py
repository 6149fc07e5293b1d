"""Makes `docs/reliability.md`: runs the tests of all promises, and writes how they ended.

python -m tests.reliability.page
"""

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from xml.etree import ElementTree

from tests.reliability.promises import PROMISES, PROOFS
from tests.reliability.undone import ROOT

PAGE = ROOT / "docs" / "reliability.md"
INTRODUCTION = """\
# What holds whatever happens

What a run promises where something goes or is wrong, and the tests that hold it. `make reliability`
runs them and makes this page; `make test` fails where the page lacks a promise. A test that cannot
fail says nothing: for each promise something is undone in the code, and one of its tests turns red
(`tests/reliability/`, {proofs} times).

The last column says whether that was measured on our machines: on CPUs, in one process or two. Not
measured are CUDA, DeepSpeed, file systems over a network, and power loss: files are brought to the
disk in the order that one asks for, and no test cuts the power. `make soak` kills, fills and ends
runs of 2,000 steps at random; [below](#the-soak) is what it found.
"""
SOAK = ROOT / "tests" / "soak" / "found.md"
HEAD = "| what happens | what holds | tests | result | here |\n|---|---|---|---|---|"


def page_of(results: Mapping[str, str]) -> str:
    """The page.

    Args:
        results: in words, by what happens.
    """
    parts = [INTRODUCTION.format(proofs=len(PROOFS))]
    for title, promises in PROMISES.items():
        rows = [
            f"| {promise.fault} | {promise.promise} | {_links(promise.tests)} | "
            f"{results.get(promise.fault, 'not run')} | {promise.here} |"
            for promise in promises
        ]
        parts.append("\n".join([f"## {title}\n", HEAD, *rows]) + "\n")
    parts.append(SOAK.read_text())
    return "\n".join(parts)


def rewrite() -> None:
    """The page again, with the results that it has."""
    PAGE.write_text(page_of(read_results(PAGE.read_text())))


def read_results(text: str) -> dict[str, str]:
    """The results that a page has."""
    found = {}
    for line in text.splitlines():
        cells = line.split(" | ")
        if line.startswith("| ") and len(cells) == 5:
            found[cells[0].removeprefix("| ")] = cells[3]
    return found


def _links(tests: tuple[str, ...]) -> str:
    files: dict[str, list[str]] = {}
    for test in tests:
        file, _, name = test.partition("::")
        files.setdefault(file, []).append(name.removeprefix("test_").replace("_", " "))
    return "; ".join(
        f"[{file}](../tests/{file}): {', '.join(names)}" for file, names in files.items()
    )


def run_apart(nodes: Iterable[str], scratch: Path) -> dict[str, str]:
    """How each of the tests ends in a process of its own: "passed", "failed" or "skipped".

    pytest must be the first to import what its plugins are made of, such as anyio; here the
    promises have imported it by now.

    Args:
        nodes: of pytest; a function's stands for all its cases.
        scratch: for their files.
    """
    report = scratch / "report.xml"
    options = ["-q", "-m", "", "--timeout=0", f"--basetemp={scratch / 'files'}"]
    pytest = [sys.executable, "-m", "pytest", *nodes, *options, f"--junitxml={report}"]
    done = subprocess.run(pytest, cwd=ROOT)
    if not report.is_file():
        raise RuntimeError(f"pytest did not run: exit code {done.returncode}")
    outcomes: dict[str, str] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        node = f"{case.attrib['classname'].replace('.', '/')}.py::{case.attrib['name']}"
        kinds = {child.tag for child in case}
        failed = bool(kinds & {"failure", "error"})
        outcomes[node] = "failed" if failed else "skipped" if "skipped" in kinds else "passed"
    return outcomes


def _said(outcomes: Mapping[str, str]) -> str:
    counts = Counter(outcomes.values())
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))


def main() -> None:
    """Run every test once, and write the page."""
    promises = [promise for part in PROMISES.values() for promise in part]
    nodes = dict.fromkeys(node for promise in promises for node in promise.nodes)
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = run_apart(nodes, Path(scratch))
    results = {
        promise.fault: _said(
            {n: kind for n, kind in outcomes.items() if n.partition("[")[0] in promise.nodes}
        )
        for promise in promises
    }
    PAGE.write_text(page_of(results))


if __name__ == "__main__":
    main()
