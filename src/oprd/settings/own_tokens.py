"""A teacher that reads its own tokens: what goes with it in a run."""

from typing import Any

from oprd.core.objective import OUTPUT_LOSSES
from oprd.settings.serving import SERVER
from oprd.values import check_choice, parse_mapping

# Whose tokens a teacher reads.
READS = ("student", "own")


def settle_own_tokens(args: Any) -> None:
    """Check the two settings, and refuse what compares two vocabularies token by token.

    Args:
        args: of the run, an `OPRDConfig`.

    Raises:
        ValueError: a value is illegal, or does not go with a teacher that reads its own tokens.
    """
    check_choice("teacher_tokenizer", args.teacher_tokenizer, READS)
    given = args.teacher_special_tokens
    if isinstance(given, str):
        given = args.teacher_special_tokens = parse_mapping("teacher_special_tokens", given)
    given = {} if given is None else given
    if not isinstance(given, dict) or not all(
        isinstance(name, str) and isinstance(other, str | None) for name, other in given.items()
    ):
        raise ValueError(
            "teacher_special_tokens must map the student's tokens to the teacher's, or to null for "
            f"nothing, such as {{'<|im_end|>': '<end_of_turn>'}}, got {given!r}."
        )
    if args.teacher_tokenizer != "own":
        if given:
            raise ValueError("teacher_special_tokens needs teacher_tokenizer='own'.")
        return
    if refused := no_own_tokens(args):
        raise ValueError(f"teacher_tokenizer='own': {refused}.")


def no_own_tokens(args: Any) -> str | None:
    """What does not go with a teacher of its own tokens, and what would; None where all does.

    Args:
        args: see `settle_own_tokens`.
    """
    objectives = args.objectives()
    if args.teachers or args.of_several:
        return "one of several teachers reads the student's tokens: give an only teacher"
    if args.teacher_source == SERVER:
        return "a teacher on a server reads the student's tokens: load it here, or leave it out"
    if args.replay:
        return (
            "replay drops rollouts by the drift of all their tokens, and the teacher may not read "
            "all of them: leave it out"
        )
    if args.teacher_source != "path":
        return (
            f"a teacher made of the student (teacher_source={args.teacher_source!r}) has no other "
            "tokens: leave it out"
        )
    if losses := [o.output_loss for o in objectives if o.output and not o.output.whole]:
        whole = ", ".join(name for name, kind in OUTPUT_LOSSES.items() if kind.whole)
        return (
            f"output_loss={losses[0]!r} looks at single tokens, and these are of two "
            f"vocabularies: take one that compares whole distributions ({whole}), or none"
        )
    if args.diagnostics_steps:
        return (
            "diagnostics compare both models' probabilities token by token, and these are tokens "
            "of two vocabularies: leave diagnostics_steps at 0"
        )
    if args.extrapolates:
        return "the reference of an extrapolation reads the student's tokens: leave it out"
    return None
