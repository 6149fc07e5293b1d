"""What a run was warned of is in its folder, once, and other trainers' warnings are not."""

import gc
import logging

from oprd.guards.warned import LOGGERS, RunWarnings
from oprd.runs.warned import read_warnings
from tests.training.runs import trainer


def test_warnings_of_construction_and_of_training_are_kept_once(tmp_path):
    made = trainer(tmp_path, max_steps=2, rollout=lambda ids: [])
    logging.getLogger("oprd.anything").warning("said before %s", "training")
    logging.getLogger("elsewhere").warning("not ours")
    made.train()
    said = read_warnings(tmp_path)
    texts = [text for _, text in said]
    assert "said before training" in texts and "not ours" not in texts
    assert texts.count("No position of this batch is supervised: its loss is zero.") == 1
    logging.getLogger("oprd.anything").warning("said after")
    assert read_warnings(tmp_path) == said


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    options = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path, **options).train()
    before = read_warnings(tmp_path)
    trainer(tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert [text for _, text in read_warnings(tmp_path)][: len(before)] == [t for _, t in before]


def test_a_trainer_that_is_gone_listens_no_longer():
    before = [len(logging.getLogger(name).handlers) for name in LOGGERS]
    listener = RunWarnings()
    assert [len(logging.getLogger(n).handlers) for n in LOGGERS] == [n + 1 for n in before]
    del listener
    gc.collect()
    assert [len(logging.getLogger(name).handlers) for name in LOGGERS] == before


def test_a_warning_is_written_to_the_terminal_as_before_where_nothing_else_shows_it(
    monkeypatch, capsys
):
    """By two listeners once, and by none where a program has a handler of its own."""
    monkeypatch.setattr(logging.root, "handlers", [])
    listeners = [RunWarnings(), RunWarnings()]
    logging.getLogger("oprd.anything").warning("said aloud")
    logging.getLogger("oprd.anything").info("not said")
    assert capsys.readouterr().err == "said aloud\n"
    monkeypatch.setattr(logging.root, "handlers", [logging.NullHandler()])
    logging.getLogger("oprd.anything").warning("shown elsewhere")
    assert capsys.readouterr().err == ""
    assert all("said aloud" in listener._waiting for listener in listeners)
