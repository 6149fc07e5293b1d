import pytest

from oprd.runs.metrics import METRICS, append_metrics, begin_metrics, read_metrics


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    append_metrics(tmp_path, 1, {"loss": 2.0})
    with (tmp_path / METRICS).open("a") as file:
        file.write('{"step": 2, "lo')
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 2.0}]


def test_a_run_that_goes_on_keeps_what_it_logged_before_and_a_new_one_nothing(tmp_path):
    for step in (1, 2, 3):
        append_metrics(tmp_path, step, {})
    begin_metrics(tmp_path, 2)
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2]
    begin_metrics(tmp_path, 0)
    assert read_metrics(tmp_path) == []


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"it holds no metrics\.jsonl"):
        read_metrics(tmp_path)
