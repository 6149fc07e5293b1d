"""What `benchmarks/gpu.sh` left in a folder, as one JSON file and one table.

python benchmarks/gpu_table.py OUT
"""

import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

MIB = 2**20


def main() -> None:
    (folder,) = map(Path, sys.argv[1:])
    found = collected(folder)
    (folder / "gpu.json").write_text(json.dumps(found, indent=2) + "\n")
    text = as_table(found)
    (folder / "gpu.md").write_text(text)
    print(text, end="")


def collected(folder: Path) -> dict[str, Any]:
    """Every figure; what a part did not leave is missing."""
    parts = [line.split() for line in (folder / "parts.txt").read_text().splitlines()]
    return {
        "parts": [{"name": n, "status": int(s), "seconds": int(t)} for n, s, t in parts],
        "tests": _tests(folder / "tests.xml"),
        "syncs": _json(folder / "syncs.json"),
        "costs": [_json(file) for file in sorted(folder.glob("bench-*/cost.json"))],
    }


def as_table(found: dict[str, Any]) -> str:
    """The costs, the tests and the waits, for a page."""
    lines = []
    for cost in found["costs"]:
        setup = cost["points"][0]["setup"]
        if not lines:
            device = cost["machine"].get("accelerator") or cost["machine"].get("processor")
            lines += [f"On {device}, weights in {setup['dtype']}, no autocast:", ""]
            lines += ["| shape | tokens | objective | s | / floor | MiB | / floor |"]
            lines += ["|---|---|---|---|---|---|---|"]
        tokens = setup["batch_size"] * (setup["prompt_length"] + setup["response_length"])
        for one in cost["points"][0]["objectives"]:
            lines.append(f"| {setup['shape']} | {tokens:,} | {one['label']} | {_cells(one)} |")
    tests = found["tests"]
    lines += ["", f"Tests: {tests}." if tests else "The tests left no result."]
    if found["syncs"]:
        lines += ["", "| objective | where the host waits | how often |", "|---|---|---|"]
        lines += [f"| {s['objective']} | {s['place']} | {s['count']} |" for s in found["syncs"]]
    failed = [part["name"] for part in found["parts"] if part["status"]]
    lines += ["", f"Failed: {', '.join(failed)}." if failed else "Every part ended well."]
    return "\n".join(lines) + "\n"


def _cells(one: dict[str, Any]) -> str:
    seconds, ratio = one["seconds"], one["time_to_floor"]
    memory, of_floor = one["transient_bytes"], one["memory_to_floor"]
    cells = [
        "" if seconds is None else f"{seconds['median']:.3f}",
        "" if ratio is None else f"{ratio['median']:.2f}",
        "" if memory is None else f"{memory / MIB:,.0f}",
        "" if of_floor is None else f"{of_floor:.2f}",
    ]
    return " | ".join(cells)


def _tests(file: Path) -> dict[str, int] | None:
    if not file.is_file():
        return None
    suite = ElementTree.parse(file).getroot().find("testsuite")
    assert suite is not None
    return {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}


def _json(file: Path) -> Any:
    return json.loads(file.read_text()) if file.is_file() else None


if __name__ == "__main__":
    main()
