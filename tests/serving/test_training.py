"""Runs whose teacher is on a server, beside the same runs with the teacher here."""

import json
from pathlib import Path

import pytest
from peft import LoraConfig

from oprd.training.trainer import OPRDTrainer
from tests import tiny
from tests.serving.server import StandIn, serving
from tests.training.runs import LORA, largest_difference, settings, trainer, weights
from tests.training.test_bridges import POSITIONS
from tests.training.test_bridges import fit as fit_bridge
from tests.training.test_bridges import student as narrow
from tests.training.test_bridges import teacher as wide


def saved(folder: Path, model) -> str:
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def both(tmp_path: Path, teacher, **options) -> tuple[list[OPRDTrainer], StandIn]:
    """Two runs of two steps, of the teacher here and of the teacher on a server."""
    source = saved(tmp_path / "teacher", teacher)
    stand_in = StandIn(teacher, tiny.tokenizer(), tmp_path / "states")
    stand_in.folder.mkdir()
    options = {"max_steps": 2, "teacher_model_name_or_path": source, **options}
    made = []
    student = options.pop("student", tiny.model)
    with serving(stand_in) as url:
        there = {
            "teacher_source": "server",
            "teacher_server_url": url,
            "teacher_server_folder": str(stand_in.folder),
        }
        for name, place in {"here": {}, "there": there}.items():
            given = source if name == "here" else None
            run = trainer(
                tmp_path / name, teacher=given, student=student(seed=1), **{**options, **place}
            )
            run.train()
            made.append(run)
    return made, stand_in


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output_loss": "topk", "output_loss_kwargs": {"k": 8}, "output_weight": 0.5},
        {"updates_per_rollout": 2, "max_steps": 4, "scale": "layer"},
        {"columns": {"teacher_prompt": [f"Think: {n}?" for n in range(16)]}},
        {"peft_config": LoraConfig(**LORA), "layers": "last", "positions": "last_k"},
    ],
    ids=["states", "output loss", "two updates", "own prompts", "adapter"],
)
def test_a_run_is_that_with_the_same_teacher_here(tmp_path: Path, options):
    (here, there), stand_in = both(tmp_path, tiny.model(seed=2), **options)
    assert largest_difference(weights(here.student), weights(there.student)) < 1e-5
    moved = (
        largest_difference(weights(tiny.model(seed=1)), weights(there.student))
        if ("peft_config" not in options)
        else 1.0
    )
    assert moved > 1e-3
    assert not list(stand_in.folder.iterdir())
    logs = [
        [entry["loss"] for entry in run.state.log_history if "loss" in entry]
        for run in (here, there)
    ]
    assert logs[1] == pytest.approx(logs[0], rel=1e-4)


def test_a_run_through_a_bridge_is_too_and_knows_its_teacher(tmp_path: Path):
    bridge = fit_bridge(tmp_path / "bridge")
    (here, there), _ = both(
        tmp_path, wide(), student=lambda seed: narrow(), bridge=bridge, **POSITIONS
    )
    assert largest_difference(weights(here.student), weights(there.student)) < 1e-5
    records = [json.loads((tmp_path / name / "run.json").read_text()) for name in ("here", "there")]
    facts = [record["identity"]["teacher"]["weights"] for record in records]
    assert facts[0] == facts[1] is not None


def test_a_server_that_dies_stops_the_run_in_one_sentence(tmp_path: Path, monkeypatch):
    from oprd.serving import client

    monkeypatch.setattr(client, "FIRST_WAIT", 0.01)
    source = saved(tmp_path / "teacher", tiny.model(seed=2))
    stand_in = StandIn(tiny.model(seed=2), tiny.tokenizer(), tmp_path)
    with serving(stand_in) as url:
        run = trainer(
            tmp_path / "run",
            teacher_source="server",
            teacher_server_url=url,
            teacher_server_folder=str(tmp_path),
            teacher_model_name_or_path=source,
        )
    before = weights(run.student)
    with pytest.raises(ConnectionError, match="does not answer after 4 tries"):
        run.train()
    assert largest_difference(before, weights(run.student)) == 0


def test_an_unrelated_teacher_on_a_server_is_not_said_to_be_fitted_to_here(tmp_path: Path, caplog):
    both(tmp_path, tiny.model(seed=2))
    said = [text for text in caplog.messages if "of different origin" in text]
    assert ["or set bridge='fit'" in text for text in said] == [True, False]
    with pytest.raises(ValueError, match="32 wide and the teacher's 48") as raised:
        run_with(wide(), narrow(), tmp_path / "wide")
    assert "oprd bridge fit" in str(raised.value) and "bridge='fit'" not in str(raised.value)


def run_with(teacher, student, tmp_path: Path) -> None:
    """Construct a run of these two, the teacher on a server."""
    source = saved(tmp_path / "teacher", teacher)
    stand_in = StandIn(teacher, tiny.tokenizer(), tmp_path)
    with serving(stand_in) as url:
        there = {"teacher_server_url": url, "teacher_server_folder": str(tmp_path)}
        options = {"teacher_model_name_or_path": source, **there}
        trainer(tmp_path / "run", student=student, teacher_source="server", **options)


SERVER = {
    "teacher_source": "server",
    "teacher_server_url": "http://127.0.0.1:8000",
    "teacher_server_folder": "states",
    "teacher_model_name_or_path": "teacher",
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"teacher_server_url": None}, "needs teacher_server_url"),
        ({"teacher_server_folder": None}, "needs teacher_server_folder"),
        ({"teacher_model_name_or_path": None}, "needs teacher_model_name_or_path"),
        ({"teacher_server_url": "127.0.0.1:8000"}, "must be like http://"),
        ({"teacher_server_timeout": 0}, "teacher_server_timeout must be"),
        ({"teacher_source": "path"}, "teacher_server_url is for teacher_source='server'"),
        ({"teacher_model_init_kwargs": {"dtype": "bfloat16"}}, "for a teacher that is loaded here"),
        ({"bridge": "fit"}, "read the teacher beforehand"),
        ({"layer_pairing": "similarity"}, "read the teacher beforehand"),
        ({"extrapolation": 1.5}, "needs a teacher that is loaded here"),
    ],
)
def test_settings_that_a_server_cannot_serve_are_refused(tmp_path: Path, options, message: str):
    settings(tmp_path, **SERVER)
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, **{**SERVER, **options})


def test_a_model_that_is_here_is_no_teacher_on_a_server(tmp_path: Path):
    with pytest.raises(ValueError, match="takes the teacher's checkpoint by its path"):
        trainer(tmp_path, teacher=tiny.model(seed=2), **SERVER)
