"""Whether prompts have the form that the student was trained on: text, or messages of a chat."""

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
