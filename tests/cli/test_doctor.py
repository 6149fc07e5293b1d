import logging
import re
import warnings
from contextlib import contextmanager

import pytest
import torch
from typer.testing import CliRunner

from oprd.cli import doctor
from oprd.cli.main import app
from oprd.core.reduction import LossSum
from oprd.core.states.comparison import LayerComparison, LayersLoss


@pytest.fixture
def facts(monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("HF_TOKEN", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "hf_secretsecretsecret")
    monkeypatch.setattr(doctor, "CHECKS", {"fine": lambda: "as it should be"})
    return CliRunner().invoke(app, ["doctor"]).stdout


def test_versions_and_hardware_are_shown_and_no_secret_is(facts: str):
    for name in ("python", "oprd", "torch", "transformers", "trl", "device", "memory", "cores"):
        assert name in facts
    assert re.search(r"trl +│ 1\.16", facts)
    assert "paste everything above" in facts
    assert "secret" not in facts


@pytest.mark.parametrize("check", doctor.CHECKS.values(), ids=doctor.CHECKS)
def test_every_check_passes_here(check):
    assert check()


def test_a_failed_check_is_shown_and_sets_the_exit_code(monkeypatch: pytest.MonkeyPatch):
    def broken() -> str:
        raise RuntimeError("[red]the\x1b[31m loss is 1")

    monkeypatch.setattr(doctor, "CHECKS", {"fine": lambda: "ok", "broken": broken})
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "FAIL" in result.stdout and "Something is broken" in result.stdout
    finding = doctor.examine("broken", broken)
    assert finding.detail.startswith(f"RuntimeError in {__name__}:")
    assert finding.detail.endswith("[red]the\\x1b[31m loss is 1")


def test_the_self_test_fails_for_a_loss_that_is_off_and_for_one_that_is_always_zero(monkeypatch):
    for value, problem in ((1e-6, "not 0"), (0.0, "not positive")):
        loss = LossSum(torch.tensor(value), torch.tensor(1.0))
        result = LayersLoss(loss, *[torch.zeros(3)] * 3)
        monkeypatch.setattr(LayerComparison, "result", lambda self, result=result: result)
        with pytest.raises(RuntimeError, match=problem):
            doctor.check_self_distillation()


def test_the_capture_check_names_architecture_and_layer(monkeypatch):
    monkeypatch.setattr(doctor, "differing_layers", lambda model: [2])
    with pytest.raises(RuntimeError, match=r"llama: layers \[2\] differ"):
        doctor.check_capture()


def test_a_state_that_is_off_is_found(monkeypatch):
    model = doctor.tiny_model("llama")
    assert doctor.differing_layers(model) == []
    capture = doctor.capture_states

    @contextmanager
    def shifted(*args):
        with capture(*args) as states:
            yield states
        states[2] = states[2] + 1e-6

    monkeypatch.setattr(doctor, "capture_states", shifted)
    assert doctor.differing_layers(model) == [2]


def test_the_models_made_up_here_are_warned_of_nowhere(monkeypatch, caplog):
    def noisy() -> str:
        logging.getLogger("oprd.somewhere").warning("a bridge is needed")
        warnings.warn("and so is a GPU", stacklevel=1)
        return "well"

    checks = {"training": doctor.check_training_step, "noisy": noisy}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doctor.run()
    assert not [record for record in caplog.records if record.name.startswith("oprd")]
    logging.getLogger("oprd.somewhere").warning("afterwards")
    assert [record.message for record in caplog.records][-1:] == ["afterwards"]


def test_the_training_check_fails_where_the_student_does_not_move(monkeypatch):
    config = doctor.OPRDConfig
    monkeypatch.setattr(
        doctor, "OPRDConfig", lambda **options: config(**{**options, "learning_rate": 1e-30})
    )
    with pytest.raises(RuntimeError, match="the student's weights did not change"):
        doctor.check_training_step()


def test_the_check_of_heads_names_the_architecture_and_the_error(monkeypatch):
    monkeypatch.setattr(doctor, "head_error", lambda model: 0.5)
    with pytest.raises(RuntimeError, match=r"llama: logits are off by 0\.5"):
        doctor.check_heads()
