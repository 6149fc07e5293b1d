"""OPRD on responses that the student did not write: the control of what being on-policy adds."""

from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lab.models import END
from lab.pairs import Pair
from oprd.calibration.rollouts import RenderedPrompt, collect_rollouts
from oprd.models.generate import TransformersEngine
from oprd.models.load import load_model
from oprd.models.sampling import Sampling
from oprd.rollouts.supervised import Write

# Whose responses a run is trained on; the student's at the start stay what they are.
TEACHER, START, SOLUTIONS = "teacher", "start", "solutions"
Problems = Sequence[tuple[str, str]]


def given(responses: dict[tuple[int, ...], list[int]]) -> Write:
    """What writes given responses, one for each prompt, in the student's place while it trains."""
    return lambda prompt_ids: [list(responses[tuple(ids)]) for ids in prompt_ids]


def write_responses(
    source: str, pair: Pair, problems: Problems, folder: Path, seed: int
) -> dict[tuple[int, ...], list[int]]:
    """A response to each problem.

    Args:
        source: `TEACHER` or `START` (both at temperature 1, as rollouts are), or `SOLUTIONS`.
        pair: whose teacher or student answers.
        problems: prompts and worked solutions.
        folder: where sampled responses are kept.
        seed: of the samples.

    Returns:
        token ids, the end token included, by the prompt's, both as the student writes them.
    """
    writer = pair.teacher if source == TEACHER else pair.student
    model, tokenizer = load_model(str(writer.path()))
    if source == SOLUTIONS:
        return {_ids(tokenizer, p): list(_ids(tokenizer, s + END)) for p, s in problems}
    _, students = load_model(str(pair.student.path()))
    rollouts = collect_rollouts(
        TransformersEngine(model, tokenizer, batch_size=512),
        [RenderedPrompt(prompt, list(_ids(tokenizer, prompt))) for prompt, _ in problems],
        Sampling(
            1,
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=pair.task_module.LONGEST_RESPONSE,
            seed=seed,
        ),
        {"source": source, "seed": seed},
        folder,
        progress=False,
    )
    if tokenizer.get_vocab() == students.get_vocab():
        return {tuple(rollout.prompt_ids): rollout.completion_ids for rollout in rollouts}
    texts = {
        rollout.text: str(tokenizer.decode(rollout.completion_ids, skip_special_tokens=True))
        + END * (rollout.finish_reason == "stop")
        for rollout in rollouts
    }
    # What the teacher says in few tokens may be longer than the student's limit.
    limit = pair.task_module.LONGEST_RESPONSE
    return {_ids(students, p): list(_ids(students, text))[:limit] for p, text in texts.items()}


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    return tuple(tokenizer(text)["input_ids"])
