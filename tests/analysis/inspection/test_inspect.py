import pytest
from datasets import Dataset

from oprd.analysis.inspection import inspect as module
from oprd.analysis.inspection.inspect import inspect_models
from oprd.calibration.models import FitModels
from tests import tiny
from tests.analysis.inspection.test_asked import ASKED
from tests.calibration.pairs import sibling, student

PROMPTS = Dataset.from_dict({"prompt": [f"What is {n}?" for n in range(6)]})


def inspected(folder, asked=ASKED):
    models = FitModels(student(), sibling(), tiny.tokenizer(), tiny.tokenizer())
    return inspect_models(models, PROMPTS, asked, {}, folder, progress=False)


def test_a_report_holds_all_that_makes_it_believed(tmp_path):
    report = inspected(tmp_path)
    assert report["tokens"]["stops"] == {"student": ["<eos>"], "teacher": ["<eos>"]}
    assert report["rollouts"]["count"] == 6
    assert report["provenance"]["rollouts"]["max_completion_length"] == 8
    assert set(report["seconds"]) == {"rollouts", "measuring"}
    assert f"output_dir: {tmp_path}/run" in report["recipe"]
    assert report["versions"] and report["machine"] and report["format"] == 1


def test_the_same_rollouts_give_the_same_figures(tmp_path):
    first, second = (inspected(tmp_path) for _ in range(2))
    for name in ("similarity", "layers", "ends", "bridge", "heads", "advice"):
        assert first[name] == second[name]


def test_several_processes_are_refused(tmp_path, monkeypatch):
    class Two:
        num_processes = 2

    monkeypatch.setattr(module, "PartialState", Two)
    with pytest.raises(ValueError, match="one process's work, and these are 2: run it alone"):
        inspected(tmp_path)
    assert not list(tmp_path.iterdir())
