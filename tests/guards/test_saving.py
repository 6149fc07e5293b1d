import json
import os
import shutil
import stat
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from torch.distributed.fsdp import StateDictType
from transformers import Trainer

from oprd.guards import saving
from oprd.runs import manifest
from oprd.runs.checkpoints import find_checkpoint
from oprd.runs.lock import LOCK, RunLock
from oprd.runs.manifest import MANIFEST, SAVING, problem, read_manifest
from tests import tiny
from tests.runs.test_lock import other  # noqa: F401 # a fixture
from tests.training.runs import LORA, PROMPTS, largest_difference, trainer, weights


def steps(folder: Path, **options: Any) -> dict[str, Any]:
    return {
        "folder": folder,
        "max_steps": 4,
        "optim": "adamw_torch",
        "learning_rate": 1e-2,
        "lr_scheduler_type": "linear",
        "save_strategy": "steps",
        "save_steps": 2,
        **options,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps with two checkpoints; tests begin runs of their own from it."""
    folder = tmp_path_factory.mktemp("run")
    trainer(**steps(folder)).train()
    return folder


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("checkpoint-*"))


def losses(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


# --- what a checkpoint says -----------------------------------------------------------------------


def test_a_checkpoint_says_what_run_it_is_of(run: Path):
    assert all(problem(run / name) is None for name in ("checkpoint-2", "checkpoint-4"))
    found = read_manifest(run / "checkpoint-2")
    assert found is not None
    assert (found["step"], found["start"], found["processes"]) == (2, 1, 1)
    assert found["settings"]["max_steps"] == 4 and len(found["settings_hash"]) == 64
    assert found["versions"]["torch"] == torch.__version__
    assert found["random_states"] == ["rng_state.pth"]
    identity = found["facts"]["identity"]
    assert identity["student"]["weights"] != identity["teacher"]["weights"]
    assert identity["dataset"]["rows"] == len(PROMPTS)
    assert identity["teacher_dtype"] == "torch.float32" and identity["bridges"] == []
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "config.json",
            "trainer_state.json"} <= set(found["files"])  # fmt: skip
    assert json.loads((run / "run.json").read_text())["identity"] == identity


def test_a_saved_student_has_a_manifest_of_its_own_files(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("mine")
    made = trainer(**steps(tmp_path, max_steps=2))
    made.train()
    for _ in range(2):
        made.save_model()
        found = read_manifest(tmp_path)
        assert found is not None and found["step"] == 2
        assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(found["files"])
        assert not [n for n in found["files"] if n in ("thesis.tex", "run.json") or "/" in n]
        assert problem(tmp_path) is None


def test_a_checkpoint_is_not_complete_before_its_files_are_hashed(tmp_path: Path, monkeypatch):
    """The next step does not wait for it, the end of training does."""
    hashing, stepped = threading.Event(), threading.Event()
    write = saving.write_manifest

    def slowly(folder: Path, *args: Any) -> None:
        hashing.set()
        assert stepped.wait(60) and problem(folder) == "its save was cut off"
        write(folder, *args)

    monkeypatch.setattr(saving, "write_manifest", slowly)
    made = trainer(**steps(tmp_path, max_steps=3, save_steps=2))
    step = made.training_step

    def stepping(*args: Any, **kwargs: Any) -> Any:
        if hashing.is_set():
            stepped.set()
        return step(*args, **kwargs)

    monkeypatch.setattr(made, "training_step", stepping)
    made.train()
    assert find_checkpoint(tmp_path, "auto") == str(tmp_path / "checkpoint-3")
    assert problem(tmp_path / "checkpoint-2") is None


def test_a_manifest_that_cannot_be_written_ends_the_run(tmp_path: Path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saving, "write_manifest", full)
    made = trainer(**steps(tmp_path))
    with pytest.raises(OSError, match="No space left"):
        made.train()
    assert made.state.global_step == 4  # when the next one is to be saved


def test_nothing_of_an_interrupted_save_gets_into_a_later_one(tmp_path: Path):
    left = tmp_path / "checkpoint-2"
    left.mkdir()
    (left / SAVING).touch()
    (left / "model.safetensors.tmp").touch()
    trainer(**steps(tmp_path, max_steps=2)).train()
    assert not list(left.glob("*.tmp")) and not (left / SAVING).exists()


# --- saves that do not come to their end ----------------------------------------------------------


class Killed(BaseException):
    """What ends a process without a word."""


STAGES = ["_save", "_save_optimizer_and_scheduler", "_save_rng_state", "store_flos"]


@pytest.mark.parametrize("stage", [*STAGES, "write_manifest", "_hash"])
def test_a_save_that_is_cut_off_anywhere_is_skipped_and_named(
    tmp_path: Path, caplog, monkeypatch, stage: str
):
    whole = trainer(**steps(tmp_path / "whole"))
    whole.train()
    killed = trainer(**steps(tmp_path / "run"))
    with monkeypatch.context() as patch:
        # It could not clean up either.
        patch.setattr(saving.shutil, "rmtree", lambda *_, **__: None)

        def die(*args: Any, **kwargs: Any) -> Any:
            # The one before may still be hashed, beside the steps.
            earlier = any("checkpoint-2" in str(value) for value in args)
            if killed.state.global_step == 4 and not earlier:
                raise Killed
            return before(*args, **kwargs)

        places: dict[str, Any] = {"write_manifest": saving, "_hash": manifest}
        place = places.get(stage, killed)
        before = getattr(place, stage)
        patch.setattr(place, stage, die)
        with pytest.raises(Killed):
            killed.train()
    resumed = trainer(**steps(tmp_path / "run"))
    resumed.train("auto")
    if stage != "store_flos":  # before anything is there
        assert "skipped in" in caplog.text and "checkpoint-4 (its save was cut off)" in caplog.text
    assert resumed.state.global_step == 4
    assert largest_difference(weights(whole.model), weights(resumed.model)) == 0
    assert problem(tmp_path / "run" / "checkpoint-4") is None


def test_what_is_left_of_a_save_that_fails_is_swept_and_the_checkpoint_before_kept(
    tmp_path: Path, monkeypatch
):
    made = trainer(**steps(tmp_path))
    save = made._save_optimizer_and_scheduler

    def failing(folder: str) -> None:
        if folder.endswith("checkpoint-4"):
            raise OSError(28, "No space left on device")
        save(folder)

    monkeypatch.setattr(made, "_save_optimizer_and_scheduler", failing)
    with pytest.raises(OSError, match="No space left"):
        made.train()
    assert checkpoints(tmp_path) == ["checkpoint-2"]
    assert problem(tmp_path / "checkpoint-2") is None


FILES = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
         "trainer_state.json", "config.json", MANIFEST]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "deleted"])
def test_of_a_damaged_checkpoint_nothing_is_loaded(run: Path, tmp_path: Path, name, damage):
    copied = copy(run, tmp_path)
    file = copied / "checkpoint-4" / name
    whole = file.read_bytes()
    file.write_bytes(
        {
            "flipped": whole[:-9] + bytes([whole[-9] ^ 0x40]) + whole[-8:],
            "cut": whole[: len(whole) // 2],
            "empty": b"",
            "deleted": b"",
        }[damage]
    )
    if damage == "deleted":
        file.unlink()
    assert find_checkpoint(copied, "auto") == str(copied / "checkpoint-2")
    if name != MANIFEST or damage != "deleted":
        with pytest.raises(ValueError, match=f"cannot resume from .*its {name}"):
            find_checkpoint(copied, str(copied / "checkpoint-4"))


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_steps": -1, "num_train_epochs": 1},
        {"prompts": [*PROMPTS, *PROMPTS[:8]]},  # ends within an epoch
    ],
)
def test_a_run_that_has_ended_trains_no_step_more(tmp_path: Path, capsys, options):
    first = trainer(**steps(tmp_path, **options))
    first.train()
    before = (tmp_path / "metrics.jsonl").read_text()
    for _ in range(2):
        again = trainer(**steps(tmp_path, **options))
        result = again.train("auto")
        assert again.state.global_step == result.global_step == 4
        assert largest_difference(weights(first.model), weights(again.model)) == 0
        assert "Nothing to train: all 4 steps" in capsys.readouterr().out
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert checkpoints(tmp_path) == ["checkpoint-2", "checkpoint-4"]
    again.save_model()
    assert problem(tmp_path) is None


def test_a_run_killed_in_its_last_save_ends_where_it_should(run: Path, tmp_path: Path):
    copied = copy(run, tmp_path)
    (copied / "checkpoint-4" / MANIFEST).unlink()
    (copied / "checkpoint-4" / SAVING).touch()
    again = trainer(**steps(copied))
    again.train("auto")
    assert [line["step"] for line in losses(copied)] == [1, 2, 3, 4]
    assert again.state.global_step == 4


@pytest.mark.parametrize("options", [{"max_steps": 3}, {"max_steps": -1, "num_train_epochs": 0.5}])
def test_fewer_steps_than_the_checkpoint_has_are_refused(run: Path, tmp_path: Path, options):
    made = trainer(**steps(tmp_path, **options))
    with pytest.raises(ValueError, match=r"of step 4.*go on from an earlier"):
        made.train(str(run / "checkpoint-4"))


# --- as what it goes on ---------------------------------------------------------------------------


def copy(run: Path, to: Path) -> Path:
    return shutil.copytree(run, to / "copy")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("teacher", {"teacher": tiny.model(seed=3)}),
        ("student", {"student": tiny.model(seed=4)}),
        ("adapter", {"lora": LORA}),
        ("layer_pairs", {"layers": "last"}),
        ("layer_pairs", {"layer_pairing": "1:2,2:1,3:3"}),
        ("output_loss", {"output_loss": "topk"}),
        ("scale", {"scale": "unit", "representation_weight": 1.0}),
        ("representation_weight", {"representation_weight": 0.5}),
        ("stages", {"stages": [{"steps": 4, "output_loss": "topk"}]}),
        ("optim", {"optim": "sgd"}),
    ],
)
def test_a_run_does_not_go_on_as_another_from_any_folder(run: Path, tmp_path: Path, name, options):
    # As an object its name would differ between the processes that run tests.
    if "lora" in options:
        options = {"peft_config": LoraConfig(**options["lora"])}
    made = trainer(**steps(tmp_path / "new", **options))
    with pytest.raises(ValueError, match=f"would go on as another one: .*{name} .*--allow_changed"):
        made.train(str(run / "checkpoint-2"))
    assert not checkpoints(tmp_path / "new") and not (tmp_path / "new" / LOCK).exists()


def test_what_is_allowed_to_change_does_and_stands_in_the_record(run: Path, tmp_path: Path, caplog):
    changed = {"teacher": tiny.model(seed=3), "scale": "unit", "representation_weight": 1.0}
    made = trainer(**steps(tmp_path, **changed, allow_changed="teacher, scale"))
    made.train(str(run / "checkpoint-2"))
    record = json.loads((tmp_path / "run.json").read_text())
    said = {change["name"]: change for change in record["changed"]}
    assert set(said) == {"teacher", "scale"} and said["scale"]["now"] == "unit"
    assert record["resumed_from"] == str(run / "checkpoint-2")
    assert "is gone on from otherwise than it began: teacher (began with" in caplog.text
    # And in what is saved from here on, wherever that is gone on from.
    again = trainer(**steps(tmp_path / "2", max_steps=4, **changed, seed=7))
    again.train(str(tmp_path / "checkpoint-4"))
    later = json.loads((tmp_path / "2" / "run.json").read_text())["changed"]
    assert [change["name"] for change in later] == ["teacher", "scale", "seed"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dataset", {"prompts": PROMPTS[::-1]}),
        ("seed", {"seed": 7}),
        ("lr_scheduler_type", {"lr_scheduler_type": "cosine"}),
        ("max_steps", {"max_steps": 6}),
        ("teacher_dtype", {"teacher": tiny.model(seed=2).bfloat16()}),
        ("gradient_accumulation_steps",
         {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}),
    ],
)  # fmt: skip
def test_what_may_change_with_a_word_does(run: Path, tmp_path: Path, caplog, name, options):
    made = trainer(**steps(tmp_path, **options))
    made.train(str(run / "checkpoint-2"))
    assert f"{name} (began with {name}=" in caplog.text
    assert made.state.global_step == options.get("max_steps", 4)


def test_a_run_goes_on_without_a_word_where_nothing_but_its_watching_changes(
    run: Path, tmp_path: Path, caplog
):
    options = {"save_steps": 1, "save_total_limit": 3, "logging_steps": 2, "run_name": "other"}
    made = trainer(**steps(tmp_path, **options))
    made.train(str(run / "checkpoint-2"))
    assert "otherwise than it began" not in caplog.text
    assert json.loads((tmp_path / "run.json").read_text())["changed"] == []


def test_a_resumed_run_saves_evaluates_and_logs_as_often_as_it_is_told(run: Path, tmp_path: Path):
    often = {"save_steps": 1, "eval_steps": 1, "logging_steps": 2}
    made = trainer(**steps(tmp_path, **often))
    made.train(str(run / "checkpoint-2"))
    assert {name: getattr(made.state, name) for name in often} == often
    assert (tmp_path / "checkpoint-3").is_dir()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [line["step"] for line in map(json.loads, lines) if "loss" in line] == [4]


@pytest.mark.parametrize("internal", [False, True])
def test_a_student_whose_state_stands_in_pieces_is_saved_whole(
    tmp_path: Path, monkeypatch, internal: bool
):
    made = trainer(**steps(tmp_path / "run"))
    plugin = SimpleNamespace(state_dict_type=StateDictType.SHARDED_STATE_DICT)
    monkeypatch.setattr(made, "is_fsdp_enabled", True)
    monkeypatch.setattr(made.accelerator.state, "fsdp_plugin", plugin, raising=False)
    monkeypatch.setattr(made.accelerator, "get_state_dict", lambda model: model.state_dict())
    made.save_model(str(tmp_path / "student"), _internal_call=internal)
    assert (tmp_path / "student" / "model.safetensors").is_file()
    assert plugin.state_dict_type is StateDictType.SHARDED_STATE_DICT


def test_a_changed_learning_rate_is_used(run: Path, tmp_path: Path, caplog):
    def rates(folder: Path, **options: Any) -> list[float]:
        made = trainer(**steps(folder, **options))
        made.train(str(run / "checkpoint-2"))
        assert made.lr_scheduler.get_last_lr() == [0.0, 0.0]
        return [line["learning_rate"] for line in losses(folder)]

    kept = rates(tmp_path / "kept")
    assert kept == pytest.approx([5e-3, 2.5e-3])
    changed = rates(tmp_path / "changed", learning_rate=4e-2)
    assert changed == pytest.approx([2e-2, 1e-2])
    assert "learning_rate (began with learning_rate=0.01, now 0.04)" in caplog.text


@pytest.mark.parametrize(
    ("setting", "value", "name", "expected"),
    [
        ("weight_decay", 0.5, "weight_decay", [0.5, 0.0]),
        ("adam_beta2", 0.5, "betas", [(0.9, 0.5)] * 2),
        ("adam_epsilon", 1e-3, "eps", [1e-3] * 2),
    ],
)
def test_changed_settings_of_the_optimizer_are_used(
    run: Path, tmp_path: Path, setting, value, name, expected
):
    made = trainer(**steps(tmp_path, **{setting: value}))
    made.train(str(run / "checkpoint-2"))
    assert [group[name] for group in made.optimizer.param_groups] == expected


def test_in_python_a_checkpoint_means_what_it_means_on_a_command_line(run: Path, tmp_path: Path):
    copied = copy(run, tmp_path)
    for name in ("checkpoint-9", "checkpoint-v2", "checkpoint-best-9"):
        (copied / name).mkdir()
    (copied / "checkpoint-9" / SAVING).touch()
    for wanted in (True, "true", "auto"):
        made = trainer(**steps(copied))
        made.train(resume_from_checkpoint=wanted)
        assert made.state.global_step == 4
    # What the settings say is meant, unless train is told otherwise.
    made = trainer(**steps(copied, resume_from_checkpoint="auto"))
    assert made.train().global_step == 4
    for anew in (None, False):
        with pytest.raises(ValueError, match="would start anew among them"):
            trainer(**steps(copied)).train(resume_from_checkpoint=anew)
    assert (copied / "checkpoint-v2").is_dir() and (copied / "checkpoint-best-9").is_dir()


def test_a_teacher_on_the_students_base_is_known_by_its_adapter(tmp_path: Path, places):
    base, adapter = places

    def made(folder: Path, teacher: str = adapter):
        return trainer(
            **steps(folder, student=base, teacher=teacher, peft_config=LoraConfig(**LORA))
        )

    first = made(tmp_path / "first")
    assert first.shares_base
    first.train()
    resumed = made(tmp_path / "second")
    resumed.train(str(tmp_path / "first" / "checkpoint-2"))
    assert largest_difference(weights(first.model), weights(resumed.model)) == 0
    file = Path(adapter) / "adapter_model.safetensors"
    save_file({name: tensor * 2 for name, tensor in load_file(file).items()}, file)
    with pytest.raises(ValueError, match="would go on as another one: teacher"):
        made(tmp_path / "third").train(str(tmp_path / "first" / "checkpoint-2"))


def test_a_new_adapter_leaves_a_student_the_one_that_its_base_is(tmp_path: Path):
    plain = trainer(tmp_path / "plain", student=tiny.model(seed=1))
    adapted = trainer(tmp_path / "lora", student=tiny.model(seed=1), peft_config=LoraConfig(**LORA))
    first, second = (made._recorder.facts["identity"] for made in (plain, adapted))
    assert first["student"]["weights"] == second["student"]["weights"]
    assert first["adapter"] != second["adapter"]


# --- which checkpoints stay -----------------------------------------------------------------------


def test_complete_checkpoints_alone_are_counted_and_deleted(tmp_path: Path):
    for name in ("checkpoint-v2", "checkpoint-best-9", "checkpoint-1-old"):
        (tmp_path / name).mkdir(parents=True)
    trainer(**steps(tmp_path, save_steps=1, save_total_limit=2)).train()
    assert checkpoints(tmp_path) == [
        "checkpoint-1-old", "checkpoint-3", "checkpoint-4", "checkpoint-best-9", "checkpoint-v2",
    ]  # fmt: skip
    assert json.loads((tmp_path / "run.json").read_text())["settings"]["save_total_limit"] == 2


def test_the_last_checkpoint_stays_beside_the_best(tmp_path: Path):
    made = trainer(
        **steps(
            tmp_path,
            save_steps=1,
            save_total_limit=1,
            eval_strategy="steps",
            eval_steps=1,
            load_best_model_at_end=True,
            metric_for_best_model="loss",
            greater_is_better=True,  # the first one
        ),
        eval_prompts=PROMPTS[:4],
    )
    made.train()
    best = Path(str(made.state.best_model_checkpoint)).name
    assert checkpoints(tmp_path) == sorted({best, "checkpoint-4"})
    assert all(problem(tmp_path / name) is None for name in checkpoints(tmp_path))


# --- what is uploaded -----------------------------------------------------------------------------


def test_what_is_uploaded_is_complete(tmp_path: Path, monkeypatch):
    pushed: list[tuple[str, str | None]] = []
    made = trainer(**steps(tmp_path, max_steps=2))

    def push(self: Trainer, folder: str | None = None, **_: Any) -> None:
        place = Path(folder or tmp_path)
        pushed.append((place.name, problem(place)))
        if folder is None:
            self.save_model(_internal_call=True)  # as Transformers' own does

    monkeypatch.setattr(Trainer, "_push_from_checkpoint", push)
    monkeypatch.setattr(Trainer, "push_to_hub", push)
    monkeypatch.setattr(Trainer, "_finish_current_push", lambda self: None)
    made.args.push_to_hub = True
    made.train()
    assert pushed == [("checkpoint-2", None)]
    made.save_model()
    assert pushed[1:] == [(tmp_path.name, None)] and problem(tmp_path) is None


def test_a_run_that_is_refused_leaves_the_record_of_the_one_before(run: Path, tmp_path: Path):
    copied = copy(run, tmp_path)
    before = (copied / "run.json").read_text()
    made = trainer(**steps(copied, teacher=tiny.model(seed=3)))
    made.record({"asked": {"teacher": "another"}})
    with pytest.raises(ValueError, match="would go on as another one"):
        made.train("auto")
    assert (copied / "run.json").read_text() == before
    again = trainer(**steps(copied))
    again.record({"asked": {"teacher": "the same"}})
    again.train("auto")
    assert json.loads((copied / "run.json").read_text())["asked"] == {"teacher": "the same"}


@pytest.mark.parametrize("folder", [".", "best"])
def test_a_student_is_refused_as_a_checkpoint_in_a_sentence(run: Path, tmp_path: Path, folder):
    copied = copy(run, tmp_path)
    trainer(**steps(copied, resume_from_checkpoint="auto")).save_model(str(copied / folder))
    with pytest.raises(ValueError, match="it holds a student alone, without a trainer_state"):
        trainer(**steps(tmp_path / "new")).train(str(copied / folder))


# --- one run to a folder --------------------------------------------------------------------------


def test_a_folder_in_which_another_run_trains_is_refused(tmp_path: Path, other):  # noqa: F811
    pid = other().pid
    made = trainer(**steps(tmp_path))
    with pytest.raises(OSError, match=f"process {pid} on .* trains in"):
        made.train()
    with pytest.raises(OSError, match=f"process {pid} on .* trains in"):
        made.save_model()
    assert not checkpoints(tmp_path) and not (tmp_path / "run.json").exists()


def test_a_run_begun_anew_over_another_leaves_none_of_its_checkpoints(run: Path, tmp_path: Path):
    copied = copy(run, tmp_path)
    made = trainer(**steps(copied, max_steps=1, save_steps=1, overwrite=True))
    made.train()
    assert checkpoints(copied) == ["checkpoint-1"]
    assert find_checkpoint(copied, "auto") == str(copied / "checkpoint-1")
    assert [line["step"] for line in losses(copied)] == [1]


# --- modes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [False, True])
def test_whatever_is_saved_has_the_mode_that_the_umask_gives(tmp_path: Path, lora: bool):
    before = os.umask(0o027)
    try:
        made = trainer(
            **steps(tmp_path, max_steps=2), peft_config=LoraConfig(**LORA) if lora else None
        )
        made.train()
        made.save_model()
    finally:
        os.umask(before)
    saved = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len([path for path in saved if path.suffix == ".safetensors"]) == 2
    modes = {str(path): stat.S_IMODE(path.stat().st_mode) for path in saved}
    assert set(modes.values()) == {0o640}, modes


# --- two processes --------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["goes_on", "waits", "sharded"])
def test_of_two_processes_a_checkpoint_holds_both(tmp_path: Path, two_processes, case: str):
    errors = two_processes("guards.distributed_saving", tmp_path, case)
    assert not any(errors), errors


def test_of_two_processes_both_refuse_what_one_of_them_finds(tmp_path: Path, two_processes):
    for case, words in (
        ("another", "would go on as another one: teacher"),
        ("damaged", "checkpoint-2 (its rng_state_1.pth is missing)"),
    ):
        errors = two_processes("guards.distributed_saving", tmp_path / case, case)
        assert all(words in error for error in errors), errors
    with RunLock(tmp_path / "run"):
        errors = two_processes("guards.distributed_saving", tmp_path, "locked")
    assert all(f"process {os.getpid()} on " in error for error in errors), errors


def test_of_two_processes_none_saves_before_the_folder_is_there(tmp_path: Path, two_processes):
    errors = two_processes("guards.distributed_saving", tmp_path, "begins_together")
    assert not any(errors), errors
