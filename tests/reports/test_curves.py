import json

import pytest

from oprd.reports.curves import plot_curves
from oprd.runs.metrics import read_metrics


def test_a_picture_is_drawn_from_a_run_folder_alone(tmp_path):
    lines = [
        {"step": step, "loss": 1 / step, "rep_cosine": 0.5, "rep_cosine/layer_01": 0.4}
        for step in range(1, 6)
    ]
    # A line of a run's end holds none of the curves.
    lines.append({"step": 5, "train_runtime": 3.0})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    plot_curves(tmp_path, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert len(read_metrics(tmp_path)) == 6


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        plot_curves(tmp_path, tmp_path / "curves.png")
