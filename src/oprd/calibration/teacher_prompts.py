"""A teacher's own prompts in a run: what its settings make of the rows, and what is measured."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, cast

from oprd.core.layers import measures
from oprd.prompts.teacher import TeacherPrompts

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig


def own_prompts(
    tokenizer: Any,
    options: Mapping[str, Any],
    args: "OPRDConfig",
    context: int | None,
    own_tokenizer: Any = None,
) -> TeacherPrompts:
    """What makes the teacher's prompts.

    Args:
        tokenizer: of both models, or the student's.
        options: what the student's chat template is given.
        args: of the run.
        context: the longest sequence that the teacher reads, None where there is no limit.
        own_tokenizer: the teacher's, where it reads its own tokens.
    """
    return TeacherPrompts(
        tokenizer,
        options,
        cast(dict[str, Any], args.teacher_chat_template_kwargs or {}),
        args.teacher_template,
        args.teacher_system_prompt,
        context,
        args.max_completion_length,
        own_tokenizer,
    )


def reads_otherwise(prompts: TeacherPrompts, columns: Collection[str], args: "OPRDConfig") -> bool:
    """Whether the teacher's view is its own.

    Args:
        prompts: of the teacher.
        columns: of the rows; empty for a stream that does not say.
        args: of the run.

    Raises:
        ValueError: it is, and something is measured beforehand in the student's view.
    """
    if not prompts.say_otherwise(columns):
        return prompts.differ(columns)
    fits = any(settings.bridge is not None for settings in args.objectives())
    measured = "a bridge" if fits else f"layer_pairing={args.layer_pairing!r}"
    if fits or measures(args.layer_pairing):
        raise ValueError(
            f"the teacher reads prompts of its own, and {measured} comes from states that both "
            "models have after the student's: name the pairs of layers of one family, such as "
            "layer_pairing='proportional', without a bridge."
        )
    return True
