import json
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from oprd.evaluation.evaluate import evaluate, evaluate_model
from oprd.evaluation.records import RecordFile
from oprd.evaluation.regrade import regrade
from oprd.evaluation.result import Evaluation, compare_evaluations
from oprd.evaluation.tasks import arithmetic
from oprd.evaluation.tasks.base import Task, Template
from oprd.evaluation.tasks.load import load_task
from oprd.models.generate import Request, Response, TransformersEngine
from oprd.models.sampling import Sampling
from tests import tiny
from tests.evaluation.samples import evaluation

TASK = arithmetic.load(count=3)
SETTINGS = {"samples": 2, "max_new_tokens": 6, "batch_size": 4, "progress": False}
IDENTITY: dict[str, str | None] = {"model": "scripted", "revision": None, "weights": None}
SAMPLING = Sampling(samples=2, max_new_tokens=20)


class Scripted:
    """An engine that answers the first sample of every problem right and the others wrong."""

    name, dtype, context_length = "scripted", "none", 100
    tokenizer = tiny.tokenizer()

    def __init__(self, batch_size: int = 4) -> None:
        self.asked: list[Request] = []
        self.batch_size = batch_size

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Response]]:
        for start in range(0, len(requests), self.batch_size):
            batch = requests[start : start + self.batch_size]
            self.asked += batch
            yield [self.answer(request) for request in batch]

    def answer(self, request: Request) -> Response:
        gold = next(p.gold for p in TASK.problems if p.id == request.problem)
        text = f"The answer is {gold if request.sample == 0 else 0}."
        return Response(request, list(text.encode()), text, "stop", 0.25)


class Answering(Scripted):
    """An engine that always says the same."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    def answer(self, request: Request) -> Response:
        return Response(request, [1], self.text, "stop", 0.25)


def run(engine: Scripted, output: Path | None = None) -> Evaluation:
    return evaluate(engine, TASK, SAMPLING, IDENTITY, output, progress=False)


def test_figures_of_a_known_model() -> None:
    found = run(Scripted())
    assert (found.summary.average.value, found.summary.best.value) == (0.5, 1)
    assert found.summary.statuses == {"correct": 3, "wrong": 3}
    assert (found.summary.seconds, found.asked, len(found.records)) == (1.5, 6, 6)
    assert found.figures()["avg@2"] == 0.5


def test_a_real_model_is_evaluated_and_its_file_says_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    found = evaluate_model(tiny.model(), tiny.tokenizer(), TASK, output=path, **SETTINGS)
    read = Evaluation.from_file(path)
    assert read.summary == found.summary
    assert read.records == sorted(found.records, key=lambda r: found.records.index(r))
    assert read.header["prompt"] == TASK.problems[0].prompt
    assert read.header["template_hash"] == TASK.template.hash


def test_an_interrupted_evaluation_draws_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = run(Scripted(), path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    engine = Scripted()
    again = run(engine, path)
    assert [(r.problem, r.sample) for r in engine.asked] == [r.key for r in whole.records[3:]]
    assert again.records == whole.records
    engine = Scripted()
    run(engine, path)
    assert engine.asked == []


def test_an_engine_that_dies_leaves_its_finished_batches(tmp_path: Path) -> None:
    class Dying(Scripted):
        def answer(self, request: Request) -> Response:
            if len(self.asked) > 4:
                raise KeyboardInterrupt
            return super().answer(request)

    with pytest.raises(KeyboardInterrupt):
        run(Dying(), tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="6 samples were asked for and 4 obtained"):
        Evaluation.from_file(tmp_path / "a.jsonl")


def test_fewer_responses_than_asked_for_are_an_error_and_kept(tmp_path: Path) -> None:
    class Lazy(Scripted):
        def generate(self, requests: Sequence[Request], sampling: Sampling):
            yield from super().generate(requests[1:], sampling)

    with pytest.raises(ValueError, match="asked for 6 samples and returned 5"):
        run(Lazy(), tmp_path / "a.jsonl")
    engine = Scripted()
    run(engine, tmp_path / "a.jsonl")
    assert len(engine.asked) == 1


def test_responses_nobody_asked_for_are_an_error() -> None:
    class Repeating(Scripted):
        def generate(self, requests: Sequence[Request], sampling: Sampling):
            yield [self.answer(requests[0])]
            yield [self.answer(requests[0])]

    with pytest.raises(ValueError, match="nobody asked for"):
        run(Repeating())


def test_a_prompt_that_does_not_fit_is_named_before_any_work() -> None:
    engine = Scripted()
    engine.context_length = 30
    with pytest.raises(
        ValueError, match=rf"{re.escape(TASK.problems[0].id)}.*max_new_tokens=20.* of 30"
    ):
        run(engine)
    assert engine.asked == []


def test_other_weights_do_not_fill_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    evaluate_model(tiny.model(), tiny.tokenizer(), TASK, output=path, name="m", **SETTINGS)
    with pytest.raises(ValueError, match="weights="):
        evaluate_model(
            tiny.model(seed=1), tiny.tokenizer(), TASK, output=path, name="m", **SETTINGS
        )


@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_seed_draws_the_same_samples(seed: int) -> None:
    first, second = (
        evaluate_model(tiny.model(), tiny.tokenizer(), TASK, seed=seed, **SETTINGS)
        for _ in range(2)
    )
    assert [r.ids for r in first.records] == [r.ids for r in second.records]
    other = evaluate_model(tiny.model(), tiny.tokenizer(), TASK, seed=2, **SETTINGS)
    assert [r.ids for r in first.records] != [r.ids for r in other.records]


def test_a_model_object_needs_its_tokenizer() -> None:
    with pytest.raises(ValueError, match="needs its tokenizer"):
        evaluate_model(tiny.model(), None, TASK, **SETTINGS)


def test_comparisons_are_paired_by_problem() -> None:
    first = evaluation({"a": [True, False], "b": [False, False]})
    second = evaluation({"b": [True, True], "a": [True, True]})
    found = compare_evaluations(first, second)
    assert (found.difference.value, found.wins, found.losses) == (0.75, 2, 0)
    with pytest.raises(ValueError, match="same problems"):
        compare_evaluations(first, evaluation({"a": [True, True]}))
    with pytest.raises(ValueError, match="template_hash='h'"):
        compare_evaluations(first, replace(second, header={**second.header, "template_hash": "x"}))


def test_regrading_needs_no_model_and_restores_broken_verdicts(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    whole = run(Scripted(), path)
    lines = path.read_text().replace('"status": "correct"', '"status": "wrong"')
    path.write_text(lines.replace('"correct": true', '"correct": false'))
    assert Evaluation.from_file(path).summary.average.value == 0
    assert regrade(path, TASK) == 3
    assert Evaluation.from_file(path).records == whole.records
    assert regrade(path, TASK) == 0
    with pytest.raises(ValueError, match="source="):
        regrade(path, arithmetic.load(count=4))


def mended(folder: Path, grade: str, answer: str = "b", prompt: str = "a?") -> Task:
    """A user's task, as its file says it now."""
    path = folder / "own.py"
    rows = [{"prompt": prompt, "answer": answer}, {"prompt": "c?", "answer": "d"}]
    path.write_text(f"prompts = {rows}\ndef grade(text, gold):\n    return {grade}\n")
    return load_task(str(path))


def test_a_mended_grader_and_gold_answer_grade_the_samples_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    task = mended(tmp_path, "text == gold")
    engine = Answering("B")
    evaluate(engine, task, SAMPLING, IDENTITY, path, progress=False)
    for change in ({"grade": "text.lower() == gold"}, {"grade": "text == gold", "answer": "B"}):
        task = mended(tmp_path, **change)
        with pytest.raises(ValueError, match=r"grader=.* with --regrade"):
            evaluate(engine, task, SAMPLING, IDENTITY, path, progress=False)
        assert regrade(path, task) == (2 if "answer" not in change else 0)
        found = evaluate(Answering("no"), task, SAMPLING, IDENTITY, path, progress=False)
        assert [record.correct for record in found.records] == [True, True, False, False]
        assert found.records[0].gold == change.get("answer", "b")
        assert (found.header["source"], found.header["grader"]) == (task.source, task.grader)


def test_samples_of_other_prompts_are_not_graded_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    task = mended(tmp_path, "text == gold")
    evaluate(Answering("b"), task, SAMPLING, IDENTITY, path, progress=False)
    before = path.read_bytes()
    other = mended(tmp_path, "text == gold", prompt="what?")
    with pytest.raises(ValueError, match=r"source=.* not known to be the same"):
        regrade(path, other)
    with pytest.raises(ValueError, match="task='own'"):
        regrade(path, replace(task, name="other"))
    with pytest.raises(ValueError, match="template_hash="):
        regrade(path, replace(task, template=Template("{problem}!")))
    assert path.read_bytes() == before


def test_what_is_being_written_is_not_graded_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    header = run(Scripted(), path).header
    with RecordFile(path, header), pytest.raises(OSError, match="written by another process"):
        regrade(path, TASK)
    assert regrade(path, TASK) == 0


def test_other_problems_under_the_same_source_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    first = run(Scripted(), path)
    changed = replace(TASK.problems[0], prompt="Something else")
    task = replace(TASK, problems=(changed, *TASK.problems[1:]))
    with pytest.raises(ValueError, match="problems_hash="):
        evaluate(Scripted(), task, SAMPLING, {**IDENTITY}, path, progress=False)
    second = evaluate(Scripted(), task, SAMPLING, IDENTITY, progress=False)
    with pytest.raises(ValueError, match="prompts or gold answers differ"):
        compare_evaluations(first, second)


def test_sixteen_thousand_samples_are_summed_up_in_seconds() -> None:
    ids, text = list(range(64)), "one two three four five six seven " * 5
    found = evaluation(
        {f"p{i}": [i % 3 == 0 or j < i % 17 for j in range(16)] for i in range(1000)}
    )
    found = Evaluation(found.header, [replace(r, ids=ids, text=text) for r in found.records])
    # Processor time: the machine may be busy with something else.
    started = time.process_time()
    summary = found.summary
    assert time.process_time() - started < 20
    assert summary.problems == 1000 and sorted(summary.pass_at) == [2, 4, 8]
    assert summary.average.low < summary.average.value < summary.average.high


def test_samples_of_one_problem_may_not_be_missing() -> None:
    with pytest.raises(ValueError, match="same number of samples"):
        _ = evaluation({"a": [True, True], "b": [True]}).summary


def test_records_are_plain_json(tmp_path: Path) -> None:
    run(Scripted(), tmp_path / "a.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows[1].keys() >= {"problem", "sample", "ids", "text", "finish_reason", "gold", "status"}
    assert TransformersEngine.name == "transformers"
