"""Records and headers made by hand, for tests that need no model."""

from typing import TYPE_CHECKING, Any

from oprd.evaluation.records import Record
from oprd.evaluation.result import Evaluation

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def record(problem: str = "p", sample: int = 0, correct: bool = True, **other: Any) -> Record:
    values = {
        "ids": [1, 2, 3],
        "text": "so the answer is 5",
        "finish_reason": "stop",
        "gold": "5",
        "extracted": "5" if correct else "6",
        "status": "correct" if correct else "wrong",
        "seconds": 0.5,
        **other,
    }
    return Record(problem=problem, sample=sample, correct=correct, **values)


def header(**other: Any) -> dict[str, Any]:
    return {
        "model": "m",
        "revision": None,
        "weights": "w",
        "task": "t",
        "source": "s",
        "template_version": 1,
        "template_hash": "h",
        "grader": "g",
        "prompt": "What is 2 + 3?",
        "engine": "e",
        "dtype": "float32",
        "sampling": {
            **{"samples": 2, "temperature": 0.7, "top_p": 0.95, "max_new_tokens": 8, "seed": 0}
        },
        "asked": 4,
        "versions": {},
        **other,
    }


def evaluation(verdicts: dict[str, list[bool]], **other: Any) -> Evaluation:
    records = [
        record(problem, sample, correct)
        for problem, row in verdicts.items()
        for sample, correct in enumerate(row)
    ]
    return Evaluation(header(asked=len(records), **other), records)


def chat_tokenizer(ending: str) -> "PreTrainedTokenizerFast":
    """A tokenizer with a chat template, whose generation prompt is `ending`, in Jinja's words."""
    from tests import tiny

    bytes_only = tiny.tokenizer()
    tokenizer = type(bytes_only)(
        tokenizer_object=bytes_only.backend_tokenizer, eos_token="<eos>", pad_token="<pad>"
    )
    turns = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}" + ending + "{% endif %}"
    return tokenizer
