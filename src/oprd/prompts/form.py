"""What form prompts have, text or messages of a chat, and whether it is the student's."""

from typing import Any

from datasets import Dataset

from oprd.evaluation.tasks.load import is_generated
from oprd.log import get_logger
from oprd.models.prompt import check_template

logger = get_logger(__name__)


def check_form(dataset: Any, reader: Any) -> None:
    """Compare a dataset's first prompt with the student's tokenizer.

    Args:
        dataset: of prompts; a stream is not looked at.
        reader: the student's tokenizer or processor.

    Warns:
        the prompts are text that does not go through the chat template there is. A task that makes
        its own prompts is text on purpose.

    Raises:
        ValueError: the prompts are messages, and there is no chat template.
    """
    if not isinstance(dataset, Dataset) or not len(dataset):
        return
    prompt = dataset[0]["prompt"]
    check_template(reader, prompt)
    if not isinstance(prompt, str) or not getattr(reader, "chat_template", None):
        return
    if not is_generated(dataset.info.dataset_name or ""):
        logger.warning_once(
            "The prompts are plain text, and the student's tokenizer has a chat template, which "
            "they do not go through: a chat model does not read such text as a question. Give "
            'messages, [{"role": "user", "content": …}], unless this is meant.'
        )


def prompt_facts(dataset: Any, name: str | None = None) -> dict[str, Any]:
    """Where prompts are from, how many they are, and whether they are messages, for a model card.

    Args:
        dataset: of prompts.
        name: of the dataset, where it is another than its own.
    """
    whole = isinstance(dataset, Dataset)
    first = dataset[0]["prompt"] if whole and len(dataset) else ""
    info = getattr(dataset, "info", None)
    return {
        "dataset": name or getattr(info, "dataset_name", None),
        "prompts": len(dataset) if whole else None,
        "chat": not isinstance(first, str),
    }
