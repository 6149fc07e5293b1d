"""Evaluate a model on a task: draw what is missing, grade it, write it, compute the figures."""

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from oprd.evaluation.graders import Grader
from oprd.evaluation.grading import Grade
from oprd.evaluation.records import Record, RecordFile, final_grade
from oprd.evaluation.result import Evaluation
from oprd.evaluation.tasks.base import Task, problems_hash
from oprd.evaluation.tasks.readable import rendered
from oprd.evaluation.thoughts import open_thought
from oprd.models.generate import (
    Engine,
    Request,
    Response,
    TransformersEngine,
)
from oprd.models.load import identify, open_engine
from oprd.models.prompt import generation_prompt
from oprd.models.sampling import Sampling
from oprd.runs.progress import progress_bar


def evaluate_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase | None,
    task: Task,
    *,
    samples: int = 16,
    temperature: float = 0.7,
    top_p: float = 0.95,
    max_new_tokens: int = 1024,
    seed: int = 0,
    limit: int | None = None,
    output: str | Path | None = None,
    name: str | None = None,
    batch_size: int = 32,
    progress: bool = True,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Evaluation:
    """Evaluate a model with Transformers.

    The global random state, the model's mode and its generation settings are left as they were.

    Args:
        model: a causal language model, or the path or hub id of one (or of an adapter).
        tokenizer: the model's own; None where `model` is a path.
        task: what is asked.
        samples: responses per problem.
        temperature: 0 is greedy, with one sample.
        top_p: the nucleus' probability mass.
        max_new_tokens: the length limit of a response.
        seed: base seed of the samples and of the bootstrap.
        limit: only the first so many problems.
        output: a JSON-lines file. What it already holds is not drawn again.
        name: what the model is called in the output; by default where it was loaded from.
        batch_size: responses drawn at once.
        progress: whether to show a progress bar.
        chat_template_kwargs: what the chat template is given, such as `enable_thinking`; as in
            training.

    Raises:
        ValueError: a setting is out of range, a prompt does not fit into the context, or the output
            file belongs to another evaluation.
    """
    sampling = Sampling(samples, temperature, top_p, max_new_tokens, seed)
    if isinstance(model, str | Path):
        engine, identity = open_engine(str(model), batch_size=batch_size)
    elif tokenizer is None:
        raise ValueError("a model object needs its tokenizer.")
    else:
        engine, identity = TransformersEngine(model, tokenizer, batch_size), identify(model)
    if name is not None:
        identity["model"] = name
    return evaluate(
        engine, task.first(limit), sampling, identity, output, progress, chat_template_kwargs
    )


def evaluate(
    engine: Engine,
    task: Task,
    sampling: Sampling,
    identity: dict[str, str | None],
    output: str | Path | None = None,
    progress: bool = True,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    grader: Grader | None = None,
) -> Evaluation:
    """Draw the missing samples of a task with any engine, grade and write each as it is made.

    Args:
        engine: what draws responses.
        task: what is asked.
        sampling: how responses are drawn.
        identity: `model`, `revision` and `weights`, for the header.
        output: a JSON-lines file, or None to keep the records in memory.
        progress: whether to show a progress bar.
        chat_template_kwargs: what the chat template is given.
        grader: the task's, where it has graded before; by default a new one.

    Raises:
        ValueError: a prompt does not fit, the file belongs to another evaluation, the engine
            returned a response that was not asked for or left one out, or the grader cannot grade
            its first answer.
    """
    options = dict(chat_template_kwargs or {})
    prompts = {p.id: rendered(engine.tokenizer, task, p, **options) for p in task.problems}
    _check_lengths(engine, task, prompts, sampling)
    thoughts = {
        p.id: open_thought(
            generation_prompt(engine.tokenizer, p.prompt, prompts[p.id][0], **options)
        )
        for p in task.problems
    }
    header = {
        **identity,
        **_task_header(task, prompts[task.problems[0].id][0]),
        "engine": engine.name,
        "dtype": engine.dtype,
        "chat_template_kwargs": options,
        "sampling": sampling.facts(),
        "asked": len(task.problems) * sampling.samples,
        "versions": {package: version(package) for package in ("oprd", "torch", "transformers")},
    }
    requests = [
        Request(p.id, sample, tuple(prompts[p.id][1]), sampling.pair_seed(task.name, p.id, sample))
        for p in task.problems
        for sample in range(sampling.samples)
    ]
    with RecordFile(Path(output), header) if output is not None else nullcontext() as file:
        done = {} if file is None else {record.key: record for record in file.records}
        missing = [r for r in requests if (r.problem, r.sample) not in done]
        for records in _draw(
            engine, task, sampling, missing, thoughts, grader or Grader(task), progress
        ):
            done |= {record.key: record for record in records}
            if file is not None:
                file.append(records)
    evaluation = Evaluation(header, [done[r.problem, r.sample] for r in requests])
    evaluation.check_complete()
    return evaluation


def _draw(
    engine: Engine,
    task: Task,
    sampling: Sampling,
    missing: list[Request],
    thoughts: Mapping[str, str],
    grader: Grader,
    progress: bool,
) -> Iterable[list[Record]]:
    """Batches of graded records for the missing requests, each asked for exactly once.

    `thoughts` are the tags that the prompts left open, by problem.
    """
    problems = {problem.id: problem for problem in task.problems}
    waiting = {(r.problem, r.sample) for r in missing}
    with progress_bar(progress) as bar:
        shown = bar.add_task(task.name, total=len(missing))
        for responses in engine.generate(missing, sampling) if missing else ():
            pairs = [(r.request.problem, r.request.sample) for r in responses]
            if len(set(pairs)) < len(pairs) or not waiting.issuperset(pairs):
                raise ValueError(f"{engine.name} returned samples nobody asked for: {pairs}.")
            waiting.difference_update(pairs)
            answers = [
                (r.text, problems[r.request.problem], thoughts[r.request.problem])
                for r in responses
            ]
            grades = grader.grade(answers)
            yield [
                _record(response, problem.gold, thought, grade)
                for response, (_, problem, thought), grade in zip(
                    responses, answers, grades, strict=True
                )
            ]
            bar.advance(shown, len(responses))
    if waiting:
        raise ValueError(
            f"{engine.name} was asked for {len(missing)} samples and returned "
            f"{len(missing) - len(waiting)}; missing, for example: {sorted(waiting)[:3]}."
        )


def _record(response: Response, gold: str, thought: str, grade: Grade) -> Record:
    grade = final_grade(grade, response.finish_reason)
    return Record(
        problem=response.request.problem,
        sample=response.request.sample,
        ids=response.ids,
        text=response.text,
        finish_reason=response.finish_reason,
        gold=gold,
        extracted=grade.extracted,
        status=grade.status,
        correct=grade.correct,
        seconds=response.seconds,
        thought=thought,
    )


def _task_header(task: Task, example: str) -> dict[str, Any]:
    return {
        "task": task.name,
        "source": task.source,
        "template_version": task.template.version,
        "template_hash": task.template.hash,
        "grader": task.grader,
        "prompt": example,
        "problems_hash": problems_hash(task.problems),
    }


def _check_lengths(
    engine: Engine, task: Task, rendered: dict[str, tuple[str, list[int]]], sampling: Sampling
) -> None:
    if engine.context_length is None:
        return
    for problem in task.problems:
        length = len(rendered[problem.id][1])
        if length + sampling.max_new_tokens > engine.context_length:
            raise ValueError(
                f"problem {problem.id!r} of {task.name} has {length} prompt tokens: with "
                f"max_new_tokens={sampling.max_new_tokens} it does not fit into the context of "
                f"{engine.context_length}."
            )
