"""`benchmarks/gpu.sh` as far as a CPU goes: it is a script, and what it leaves becomes a table."""

import json
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
# What the script says of the image.
IMAGE = ("torch", "transformers", "accelerate", "peft", "pytest")


def test_it_is_a_script_that_asks_for_its_folders():
    script = ROOT / "benchmarks" / "gpu.sh"
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    asked = subprocess.run(["bash", script], capture_output=True, text=True, check=False)
    assert asked.returncode != 0 and "the folder of wheels" in asked.stderr


def needed(package: str) -> set[str]:
    """What a package wants installed beside it, on this machine."""
    wanted = (Requirement(text) for text in requires(package) or ())
    return {
        canonicalize_name(one.name)
        for one in wanted
        if one.marker is None or one.marker.evaluate({"extra": ""})
    }


def test_the_wheels_that_it_names_are_all_that_the_image_lacks():
    text = (ROOT / "benchmarks" / "gpu.sh").read_text()
    named = [
        set(re.findall(r"[a-z][a-z-]+", re.sub(r"==[\d.]+", "", found)))
        for found in re.findall(
            r"(?:--dest WHEELS|--find-links \"\$wheels\")((?:[^\n]*\\\n)*[^\n]*)", text
        )
    ]
    assert len(named) == 2 and named[0] == named[1]
    there, coming = set(), set(IMAGE)
    while coming:
        there |= coming
        coming = {other for one in coming for other in needed(one)} - there
    for package in ("oprd", *named[0]):
        assert needed(package) <= there | named[0], package


def test_what_it_leaves_becomes_one_file_and_one_table(tmp_path: Path):
    setup = {
        "shape": "qwen2.5-0.5b",
        "dtype": "bfloat16",
        "batch_size": 1,
        "prompt_length": 16,
        "response_length": 2032,
    }
    spread = {"median": 0.5, "min": 0.4, "max": 0.6}
    one = {
        "label": "OPRD",
        "seconds": spread,
        "time_to_floor": {**spread, "median": 1.01},
        "transient_bytes": 3 * 2**30,
        "memory_to_floor": None,
    }
    cost = {
        "machine": {"accelerator": "1 × cuda", "processor": "a"},
        "points": [{"setup": setup, "objectives": [one]}],
    }
    (tmp_path / "bench-a").mkdir()
    (tmp_path / "bench-a" / "cost.json").write_text(json.dumps(cost))
    (tmp_path / "parts.txt").write_text("tests 1 12\nbench-a 0 30\n")
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite tests="9" failures="1" errors="0" skipped="2"/></testsuites>'
    )
    waits = [{"objective": "oprd", "place": "core/positions.py:40 row_index", "count": 2}]
    (tmp_path / "syncs.json").write_text(json.dumps(waits))
    script = ROOT / "benchmarks" / "gpu_table.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["parts"][0] == {"name": "tests", "status": 1, "seconds": 12}
    table = (tmp_path / "gpu.md").read_text()
    # A run on a GPU has float32 weights under autocast by default, and these are not its figures.
    assert "On 1 × cuda, weights in bfloat16, no autocast:" in table
    assert "| qwen2.5-0.5b | 2,048 | OPRD | 0.500 | 1.01 | 3,072 |  |" in table
    assert "| oprd | core/positions.py:40 row_index | 2 |" in table
    assert "'failures': 1" in table and "Failed: tests." in table


def test_what_was_not_left_is_missing(tmp_path: Path):
    (tmp_path / "parts.txt").write_text("")
    script = ROOT / "benchmarks" / "gpu_table.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, capture_output=True)
    assert "The tests left no result." in (tmp_path / "gpu.md").read_text()
