import json
import resource
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
from peft import LoraConfig
from transformers import TrainerCallback

from oprd.guards import saving, space
from oprd.runs.checkpoints import bytes_of_run
from oprd.runs.manifest import problem
from tests import tiny
from tests.training.runs import LORA, trainer, weights
from tests.training.test_resume import steps


@contextmanager
def files_of(size):
    """No file may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"optim": "sgd"},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"lora": True},
        {"tied": True},
        {"save_only_model": True},
    ],
    ids=str,
)
def test_what_a_checkpoint_takes_is_known_before_and_after_the_first_step(tmp_path, options):
    options = dict(options)
    peft = LoraConfig(**LORA) if options.pop("lora", False) else None
    tied, needs = options.pop("tied", False), []
    student, teacher = (
        tiny.model(seed=seed, tie_word_embeddings=tied, hidden_size=128) for seed in (1, 2)
    )
    made = trainer(**steps(tmp_path, **options), student=student, teacher=teacher, peft_config=peft)
    check = made.space._check
    made.space._check = lambda folder, need, **_: (needs.append(need), check(folder, need))
    made.train()
    first, *saves = needs
    student_alone = made.space._need(weights_only=True)
    taken = size(tmp_path / "checkpoint-4")
    # The rest is for small files, of which a tiny model has few.
    rest = space.FURTHER_BYTES + space.TOKEN_BYTES * tiny.VOCAB
    # No loss here reads the LM head, which has no moments: a run sees that after its first step.
    head = 2 * tiny.VOCAB * 128 * 4
    assert taken <= first.all - student_alone.all <= taken + rest + head + 10_000
    assert taken <= saves[-1].all <= taken + rest + 10_000
    largest = max(path.stat().st_size for path in (tmp_path / "checkpoint-4").iterdir())
    assert largest == pytest.approx(saves[-1].largest, abs=40_000)


def test_a_run_without_room_for_a_checkpoint_ends_before_its_first_step(tmp_path, monkeypatch):
    made = trainer(**steps(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr("oprd.runs.space.free_bytes", lambda folder: 1_000_000)
        with pytest.raises(OSError, match=rf"{tmp_path} needs about [\d,]+ bytes, and 1,000,000"):
            made.train()
    assert not list(tmp_path.iterdir())
    assert made.state.global_step == 0
    with (
        files_of(10_000),
        pytest.raises(OSError, match=r"needs a file of about [\d,]+ bytes, and files may have 10"),
    ):
        trainer(**steps(tmp_path)).train()


def test_a_run_that_saves_nothing_needs_no_room(tmp_path, monkeypatch):
    monkeypatch.setattr("oprd.runs.space.free_bytes", lambda folder: 0)
    trainer(**steps(tmp_path, save_strategy="no", max_steps=1)).train()


@pytest.mark.parametrize(
    ("options", "kept"),
    [({}, 4), ({"save_total_limit": 1}, 2), ({"save_strategy": "epoch"}, 1)],
)
def test_a_run_whose_later_checkpoints_find_no_room_says_so_first(
    tmp_path, monkeypatch, caplog, options, kept
):
    made = trainer(**steps(tmp_path, **{"save_steps": 1, **options}))
    free = {"bytes": 10**12}
    monkeypatch.setattr(space, "free_bytes", lambda folder: free["bytes"])
    made.space.on_train_begin(made.args, _state(made), made.control)
    assert "checkpoints that this run keeps" not in caplog.text
    one = made.space._need().all
    free["bytes"] = kept * one + made.space._need(weights_only=True).all - 1
    made.space.on_train_begin(made.args, _state(made), made.control)
    assert f"The {kept} checkpoints that this run keeps at once, and its student" in caplog.text


def _state(made):
    """As training begins."""
    made.create_optimizer()
    made.state.max_steps, made.state.num_train_epochs, made.state.save_steps = 4, 1, 1
    return made.state


@pytest.mark.parametrize(
    "part", ["_save", "_save_optimizer_and_scheduler", "_save_rng_state"], ids=str
)
def test_a_save_that_fails_is_named_and_swept_and_the_run_goes_on_from_the_one_before(
    tmp_path, part
):
    made = trainer(**steps(tmp_path / "run"))
    save = getattr(made, part)

    def failing(*args, **kwargs):
        with files_of(100) if made.state.global_step == 4 else files_of(resource.RLIM_INFINITY):
            return save(*args, **kwargs)

    setattr(made, part, failing)
    named = r"checkpoint-4: .+; it needs about [\d,]+ bytes, and [\d,]+ are free"
    with pytest.raises(OSError, match=named):
        made.train()
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-2"]
    assert problem(tmp_path / "run" / "checkpoint-2") is None
    again = trainer(**steps(tmp_path / "run"))
    again.train(resume_from_checkpoint=True)
    whole = trainer(**steps(tmp_path / "whole"))
    whole.train()
    expected, found = weights(whole.model), weights(again.model)
    assert all((expected[name] == found[name]).all() for name in expected)


def test_room_is_looked_for_before_each_save(tmp_path, monkeypatch):
    made = trainer(**steps(tmp_path))
    free = {"bytes": 10**12}
    monkeypatch.setattr("oprd.runs.space.free_bytes", lambda folder: free["bytes"])
    save = made._save_checkpoint

    def saving(*args):
        free["bytes"] = 10**12 if made.state.global_step == 2 else 1000
        save(*args)

    made._save_checkpoint = saving
    with pytest.raises(OSError, match=r"checkpoint-4 needs about [\d,]+ bytes, and 1,000 are free"):
        made.train()
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


def test_a_student_that_could_not_be_saved_leaves_what_else_is_in_its_folder(tmp_path):
    made = trainer(**steps(tmp_path / "run"))
    made.train()
    with files_of(30_000):
        made.space._check = lambda *args, **kwargs: None
        with pytest.raises(OSError, match="it needs about"):
            made.save_model(str(tmp_path / "run"))
        with pytest.raises(OSError, match="it needs about"):
            made.save_model(str(tmp_path / "new"))
    assert (tmp_path / "run" / "checkpoint-4").exists()
    assert not (tmp_path / "new").exists()


def test_all_processes_stop_where_one_has_no_room(tmp_path, two_processes):
    errors = two_processes("guards.distributed_space", tmp_path)
    assert not any(errors), errors
    assert not list(tmp_path.glob("checkpoint-*"))


FULL = """
import shutil, sys
from pathlib import Path
from oprd.guards import space
from tests.training.runs import trainer
from tests.training.test_resume import steps

folder = Path(sys.argv[1])
made = trainer(**steps(folder))
made.space._check = lambda *args, **kwargs: None
save = made._save_checkpoint

def saving(*args):
    if made.state.global_step == 4:
        left = shutil.disk_usage(folder).free
        (folder / "others").write_bytes(bytes(left - 100_000))
    save(*args)

made._save_checkpoint = saving
try:
    made.train()
except OSError as error:
    print("said:", error)
print("left:", sorted(path.name for path in folder.glob("checkpoint-*")))
"""


@pytest.mark.slow
def test_a_disk_that_is_full_keeps_the_checkpoint_before(tmp_path):
    """On a disk of its own, which no other process sees."""
    disk = ["unshare", "--mount", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*disk, "true"]).returncode:
        pytest.skip("mounting is not allowed here")
    mount = f"mount -t tmpfs -o size=4m tmpfs {tmp_path} && exec {sys.executable} -c '{FULL}' "
    done = subprocess.run(
        [*disk, "sh", "-c", mount + str(tmp_path)], capture_output=True, text=True
    )
    assert "left: ['checkpoint-2']" in done.stdout, done.stderr
    said = done.stdout.partition("said: ")[2]
    assert f"{tmp_path}/checkpoint-4: " in said and "bytes, and" in said


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_is_overwritten_when_there_is_room_for_another_and_not_before(tmp_path, monkeypatch):
    trainer(**steps(tmp_path, seed=3)).train()
    before = contents(tmp_path)
    made = trainer(**steps(tmp_path, overwrite=True))
    made.record({"asked": {"seed": 1}})
    freed = bytes_of_run(tmp_path, "best")
    free = {"bytes": 1000}
    monkeypatch.setattr("oprd.runs.space.free_bytes", lambda folder: free["bytes"])
    with pytest.raises(OSError, match=rf"bytes, and {freed + 1000:,} are free"):
        made.train()
    assert contents(tmp_path) == before
    # What it deletes is room for it.
    made.create_optimizer()
    both = made.space._need() + made.space._need(weights_only=True)
    free["bytes"] = both.all - freed + 1
    made.add_callback(Roomy(free))
    made.train()
    assert '"seed": 3' in before[tmp_path / "run.json"].decode()
    assert json.loads((tmp_path / "run.json").read_text())["asked"] == {"seed": 1}


class Roomy(TrainerCallback):
    """Has room again once training has begun."""

    def __init__(self, free):
        self.free = free

    def on_train_begin(self, args, state, control, **kwargs):
        self.free["bytes"] = 10**12


def test_room_is_looked_for_when_what_is_to_be_deleted_is(tmp_path, monkeypatch):
    made = trainer(**steps(tmp_path, save_steps=1, save_total_limit=1))
    rotate, check, there = saving.rotate, made.space._check, []

    def slowly(*args):
        time.sleep(0.5)
        rotate(*args)

    def looking(folder, need, **options):
        there.append(len(list(tmp_path.glob("checkpoint-*"))))
        check(folder, need, **options)

    monkeypatch.setattr(saving, "rotate", slowly)
    made.space._check = looking
    made.train()
    assert there == [0, 0, 1, 1, 1]


def test_a_run_that_saves_no_checkpoint_needs_room_for_its_student(tmp_path, monkeypatch, caplog):
    made = trainer(**steps(tmp_path, save_strategy="no", max_steps=1))
    monkeypatch.setattr("oprd.runs.space.free_bytes", lambda folder: 1000)
    with pytest.raises(OSError, match=r"bytes, and 1,000 are free"):
        made.space.check_student()
    # From Python it may be saved elsewhere.
    made.train()
    assert "No room for the student of this run: " in caplog.text
