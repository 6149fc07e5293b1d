"""Whether a response holds an answer at all, in any of the forms that our tasks ask for."""

from oprd.evaluation.boxes import last_box
from oprd.evaluation.tasks.arithmetic import extract_answer
from oprd.evaluation.tasks.reasoning import extract
from oprd.evaluation.thoughts import answer_part


def holds_answer(text: str) -> bool:
    """Whether there is a box, an answer between tags or "The answer is …", outside of thoughts."""
    answer = answer_part(text)
    boxed = last_box(answer).content is not None
    return boxed or extract(text)[1] is not None or extract_answer(answer) is not None
