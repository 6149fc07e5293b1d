import pytest

from lab import offpolicy as module
from lab.models import make_tokenizer
from lab.offpolicy import SOLUTIONS, START, TEACHER, given, write_responses
from lab.pairs import PAIRS
from oprd.calibration.rollouts import Rollout

PROBLEMS = [("1+2=", "1+2=3"), ("3+4=", "3+4=7")]


@pytest.fixture
def tokenizer(monkeypatch):
    tokenizer = make_tokenizer("0123456789+=;")
    loaded = []

    def load(path):
        loaded.append(path)
        return object(), tokenizer

    monkeypatch.setattr(module, "load_model", load)
    monkeypatch.setattr("lab.moments.obtain", lambda recipe: recipe.folder)
    monkeypatch.setattr(module, "TransformersEngine", lambda model, tokenizer, batch_size: model)
    tokenizer.loaded = loaded
    return tokenizer


def test_worked_solutions_end_with_the_end_token(tokenizer, tmp_path):
    responses = write_responses(SOLUTIONS, PAIRS["sums"], PROBLEMS, tmp_path, seed=0)
    texts = {tokenizer.decode(k): tokenizer.decode(v) for k, v in responses.items()}
    assert texts == {"1+2=": "1+2=3#", "3+4=": "3+4=7#"}


@pytest.mark.parametrize(("source", "step"), [(TEACHER, 1500), (START, 250)])
def test_responses_are_sampled_from_the_model_that_is_named(
    tokenizer, tmp_path, monkeypatch, source, step
):
    def collect(engine, prompts, sampling, header, folder, *, progress):
        assert (sampling.temperature, sampling.top_p) == (1.0, 1.0)
        return [
            Rollout(n, prompt.text, prompt.ids, [n], "stop") for n, prompt in enumerate(prompts)
        ]

    monkeypatch.setattr(module, "collect_rollouts", collect)
    responses = write_responses(source, PAIRS["sums"], PROBLEMS, tmp_path, seed=0)
    assert list(responses.values()) == [[0], [1]]
    assert tokenizer.loaded[0].endswith(f"checkpoint-{step}")


def test_the_given_responses_are_written_and_none_is_shared():
    responses = {(1, 2): [5, 6], (3,): [7]}
    written = given(responses)([[3], [1, 2]])
    assert written == [[7], [5, 6]]
    written[0].append(9)
    assert responses[3,] == [7]
