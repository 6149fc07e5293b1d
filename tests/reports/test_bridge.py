import io

import pytest
from rich.console import Console

from oprd.reports.bridge import plot_bridge, print_bridge

LAYER = {
    "student": 1,
    "teacher": 2,
    "cosine": {"before": 0.01, "after": 0.9},
    "r_squared": {"before": -0.2, "after": 0.8},
    "states_cosine": None,
    "ridge": 0.03,
    "explained_variance": 0.7,
    "best_rank": 2,
    "eigenvalues": [3.0, 1.0, 0.0],
    "component_r_squared": {"fit": [0.9, 0.7, 0.0], "held_out": [0.9, 0.6, 0.0]},
}
REPORT = {
    "rank": 2,
    "basis": "pca",
    "student_dim": 4,
    "teacher_dim": 3,
    "rollouts": {"rollouts": 2000, "fit": 1600, "held_out": 400},
    "rows": {"fit": 12345, "held_out": 3000},
    "layers": [LAYER, {**LAYER, "student": 2, "teacher": 3}],
    "curve": [
        {"rank": 1, "cosine": 0.95, "r_squared": 0.9, "rank_error": 0.4},
        {"rank": 2, "cosine": 0.9, "r_squared": 0.8, "rank_error": 0.25},
    ],
    "advice": {"rank": 2, "rank_error": 0.25, "reason": "because."},
}


def printed(report):
    out = io.StringIO()
    print_bridge(report, Console(file=out, width=100))
    return out.getvalue()


def test_the_text_says_what_was_fitted_how_well_and_what_is_advised():
    text = printed(REPORT)
    for part in ("12,345 rows", "0.010 → 0.900", "-0.200 → 0.800", "0.03", "0.950", "0.250"):
        assert part in text
    assert "Rank 2 is advised: because." in text
    assert "states" not in text


def test_equal_widths_show_the_cosine_of_the_states_themselves():
    layers = [{**LAYER, "states_cosine": 0.125}]
    assert "0.125" in printed({**REPORT, "layers": layers})


def test_no_advice_is_said_to_be_none():
    advice = {"rank": 0, "rank_error": 1.0, "reason": "[b]of noise.[/b]"}
    assert "No rank is advised: [b]of noise.[/b]" in printed({**REPORT, "advice": advice})


@pytest.mark.parametrize("rank", [0, 2])
def test_the_picture_is_drawn(tmp_path, rank):
    report = {**REPORT, "advice": {**REPORT["advice"], "rank": rank}}
    plot_bridge(report, tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes()[:4] == b"\x89PNG"


def test_the_text_says_what_the_pull_makes_of_what_the_student_says():
    pull = {"rows": 10, "before": 1.5, "after": 0.25, "problem": None}
    text = " ".join(printed({**REPORT, "pull": pull}).split())
    assert "nearer to the teacher's: a KL of 1.5 nats becomes 0.25." in text
    text = printed({**REPORT, "pull": {**pull, "problem": "[b]it unlearns.[/b]"}})
    assert "Do not train through it alone: [b]it unlearns.[/b]" in text
