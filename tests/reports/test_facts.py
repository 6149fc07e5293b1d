"""What a report says in words, of whatever a record holds."""

import pytest

from oprd.reports.facts import key_figures, objective, what_was_run
from oprd.reports.markdown import markdown
from oprd.reports.told import read
from oprd.runs.folder import read_run
from tests.reports.made import line, write_metrics, write_run

CHANGING = {"from": 1.0, "to": 0.25, "start": 0, "steps": 10}


def test_a_weight_that_changes_is_told_from_and_to():
    settings = {"representation_weight": CHANGING, "state_loss": "mse"}
    assert objective(settings) == "(1 → 0.25) × mse of states"
    settings = {"output_loss": "reverse_kl", "output_weight": {**CHANGING, "to": 2}}
    assert objective(settings) == "(1 → 2) × reverse_kl of output distributions"


@pytest.mark.parametrize(
    "settings",
    [
        {"representation_weight": CHANGING},
        {"representation_weight": "a half", "output_loss": "jsd", "output_weight": {"from": None}},
        {"stages": 3},
        {"stages": "two"},
        {"stages": {"until": 0.5}},
        {"stages": [None, "x", {"bridge": 3}]},
        {"bridge": 3},
    ],
)
def test_no_setting_of_one_run_takes_down_the_page_of_the_others(tmp_path, settings):
    odd = read_run(write_run(tmp_path / "odd", settings=settings))
    text = markdown(read([odd, read_run(write_run(tmp_path / "whole"))]))
    assert "## odd" in text and "## whole" in text


def time(run):
    return dict(key_figures(read_run(run), [])).get("Time")


def test_the_time_is_that_of_all_parts_of_a_run(tmp_path):
    folder = write_run(tmp_path / "run", steps=8)
    first = [*(line(n, step_time=90.0) for n in (1, 2)), {"step": 2, "train_runtime": 240.0}]
    last = [line(n, step_time=30.0) for n in (3, 4)]
    write_metrics(folder, first)
    assert time(folder) == "4.0 min"
    # One that goes on is estimated by its steps since.
    write_metrics(folder, [*first, *last])
    assert time(folder) == "5.0 min"
    write_metrics(folder, [*first, *last, {"step": 4, "train_runtime": 120.0}])
    assert time(folder) == "6.0 min"
    write_metrics(folder, [line(1)])
    assert time(folder) is None


def test_a_model_on_the_hub_keeps_its_owner_and_a_folder_loses_its_path(tmp_path):
    names = {"student": "owner/student", "teacher": "/data/all/teacher", "dataset": "owner/sums"}
    told = dict(what_was_run(read_run(write_run(tmp_path / "run", **names))))
    assert (told["Student"], told["Teacher"]) == ("owner/student", "teacher")
    assert told["Prompts"] == "100 from owner/sums, chat messages"
