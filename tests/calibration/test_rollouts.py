import json

import pytest

from oprd.calibration.rollouts import (
    RenderedPrompt,
    Rollout,
    check_rollouts,
    collect_rollouts,
    read_rollouts,
)
from oprd.models.generate import TransformersEngine
from oprd.models.sampling import Sampling
from tests import tiny
from tests.calibration.pairs import rollouts, student

HEADER = {"student": {"weights": "abc"}, "sampling": {"temperature": 1.0}}
SAMPLING = Sampling(1, 1.0, 1.0, 5)
PROMPTS = [
    RenderedPrompt(text, tiny.tokenizer()(text)["input_ids"])
    for text in ("1+1=", "12+30=", "5=", "9+9+9=", "7-7=")
]


class CountingEngine(TransformersEngine):
    """Counts what it is asked for, and can be cut off after so many batches."""

    def __init__(self, batches=None):
        super().__init__(student(), tiny.tokenizer(), batch_size=2)
        self.asked, self._left = [], batches

    def generate(self, requests, sampling):
        self.asked += [int(request.problem) for request in requests]
        for batch in super().generate(requests, sampling):
            if self._left == 0:
                raise KeyboardInterrupt
            self._left = self._left and self._left - 1
            yield batch


def collect(folder, engine, header=HEADER):
    return collect_rollouts(engine, PROMPTS, SAMPLING, header, folder, progress=False)


def test_every_prompt_gets_a_rollout_that_the_file_holds(tmp_path):
    found = collect(tmp_path, CountingEngine())
    assert [rollout.prompt for rollout in found] == [0, 1, 2, 3, 4]
    assert [rollout.prompt_ids for rollout in found] == [prompt.ids for prompt in PROMPTS]
    assert all(1 <= len(rollout.completion_ids) <= 5 for rollout in found)
    header, read = read_rollouts(tmp_path / "rollouts.jsonl")
    assert (header, read) == (HEADER, found)


def test_an_interrupted_collection_goes_on_with_what_is_missing(tmp_path):
    whole = collect(tmp_path / "whole", CountingEngine())
    with pytest.raises(KeyboardInterrupt):
        collect(tmp_path / "cut", CountingEngine(batches=1))
    file = tmp_path / "cut" / "rollouts.jsonl"
    _, kept = read_rollouts(file)
    assert len(kept) == 2
    # The kill came in the middle of a line.
    file.write_bytes(file.read_bytes() + b'{"prompt": 4, "te')
    engine = CountingEngine()
    assert collect(tmp_path / "cut", engine) == whole
    assert sorted(engine.asked + [rollout.prompt for rollout in kept]) == [0, 1, 2, 3, 4]


def test_parts_of_several_processes_are_put_together(tmp_path):
    whole = collect(tmp_path / "whole", CountingEngine())
    folder = tmp_path / "parts"
    folder.mkdir()
    lines = (tmp_path / "whole" / "rollouts.jsonl").read_bytes().splitlines(keepends=True)
    (folder / "rollouts.jsonl").write_bytes(b"".join(lines[:3]))
    # The second of the first file is here again, as after a kill while files are put together.
    (folder / "rollouts-1.jsonl").write_bytes(b"".join([lines[0], *lines[2:5]]))
    engine = CountingEngine()
    assert collect(folder, engine) == whole
    assert engine.asked == [4]
    assert [path.name for path in folder.iterdir()] == ["rollouts.jsonl"]


def test_rollouts_of_other_settings_are_refused_and_kept(tmp_path):
    collect(tmp_path, CountingEngine())
    before = (tmp_path / "rollouts.jsonl").read_bytes()
    other = {**HEADER, "sampling": {"temperature": 0.5}}
    with pytest.raises(ValueError, match=r"sampling=.*'temperature': 1\.0.*another output"):
        collect(tmp_path, CountingEngine(), other)
    assert (tmp_path / "rollouts.jsonl").read_bytes() == before


def test_an_engine_that_returns_too_few_is_an_error_with_counts(tmp_path):
    class Lossy(CountingEngine):
        def generate(self, requests, sampling):
            yield from list(super().generate(requests, sampling))[1:]

    with pytest.raises(ValueError, match="5 rollouts were asked for and 3 came back"):
        collect(tmp_path, Lossy())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt_ids", [], "prompt_ids must hold a token"),
        ("completion_ids", [1, -2], "completion_ids must be a list of token ids"),
        ("completion_ids", "text", "completion_ids must be a list of token ids"),
        ("text", None, "text a text"),
    ],
)
def test_a_line_that_is_no_rollout_is_named(tmp_path, field, value, message):
    row = {**rollouts(1)[0].__dict__, field: value}
    lines = [{"format": 1}, row, {**rollouts(2)[1].__dict__}]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=rf"r\.jsonl, line 2: .*{message}"):
        read_rollouts(tmp_path / "r.jsonl")


def test_a_file_without_rollouts_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_rollouts(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ValueError, match="holds no rollouts"):
        read_rollouts(tmp_path / "empty.jsonl")


def test_rollouts_beyond_a_model_are_refused_by_prompt():
    found = [Rollout(7, "what?", [1, 2], [3, 250], "stop")]
    check_rollouts(found, {"teacher": 251}, {"student": 4})
    with pytest.raises(ValueError, match=r"prompt 7 \('what\?'\) holds token 250.* 250 rows"):
        check_rollouts(found, {"teacher": 250}, {})
    with pytest.raises(ValueError, match="4 tokens long with its response, and the teacher reads"):
        check_rollouts(found, {}, {"teacher": 3})
