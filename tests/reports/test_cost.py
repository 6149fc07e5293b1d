import io
import json

import pytest
from rich.console import Console

from oprd.reports.cost import plot_costs, print_costs, read_costs


def entry(name: str, seconds: float, transient: int | None = 2**21) -> dict:
    spread = {"median": seconds, "min": seconds / 2, "max": seconds * 2}
    return {
        "name": name,
        "label": f"[bold]{name}",
        "family": "floor",
        "seconds": spread,
        "each_round": [seconds],
        "time_to_floor": spread,
        "time_to_naive_topk": None,
        "time_to_first_point": spread,
        "transient_bytes": transient,
        "memory_to_floor": None if transient is None else 1.25,
        "memory_to_naive_topk": None,
    }


def result(sweep: str | None = None, transient: int | None = 2**21) -> dict:
    setup = {
        "shape": "tiny",
        "layers_count": 2,
        "vocab_size": None,
        "batch_size": 1,
        "prompt_length": 3,
        "response_length": 4,
        "dtype": "float32",
        "gradient_checkpointing": True,
    }
    points = [
        {
            "value": value,
            "setup": setup,
            "objectives": [entry("floor", value, transient), entry("oprd", 3.5, transient)],
        }
        for value in ([1, 2] if sweep else [1])
    ]
    machine = {"accelerator": None, "processor": "a CPU", "cores": 2, "threads": 1}
    return {
        "machine": machine,
        "versions": {"torch": "2"},
        "rounds": 1,
        "warm_up_rounds": 1,
        "sweep": sweep,
        "points": points,
    }


def printed(found: dict) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    print_costs(found, console)
    return console.export_text()


def test_the_table_shows_medians_ratios_and_what_was_measured():
    text = printed(result())
    line = next(line for line in text.splitlines() if "oprd" in line)
    assert line.split() == ["[bold]oprd", "3.50", "1.75–7.00", "3.50", "–", "2", "1.25", "–"]
    assert "tiny: 2 blocks, 1 rollouts" in text and "gradient checkpointing" in text
    assert "a CPU, 2 cores, 1 threads" in " ".join(text.split())


def test_the_table_of_a_sweep_shows_how_much_the_cost_grows():
    text = printed(result("vocab_size"))
    assert "s at 1" in text and "s at 2" in text
    line = next(line for line in text.splitlines() if "floor" in line)
    assert line.split() == ["floor", "1.00", "2.00", "2.00", "2", "2", "1.00"]


@pytest.mark.parametrize("sweep", [None, "vocab_size"])
@pytest.mark.parametrize("transient", [None, 2**21])
def test_the_picture_is_drawn_from_the_file_alone(tmp_path, sweep, transient):
    (tmp_path / "cost.json").write_text(json.dumps(result(sweep, transient)))
    plot_costs(tmp_path / "cost.json", tmp_path / "cost.png")
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="is not a file of oprd bench"):
        read_costs(tmp_path / "other.json")
