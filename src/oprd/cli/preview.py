"""`oprd train --preview`: what a run is told, what it would read and supervise; nothing trains."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from oprd.models.views import OWN_IDS, PROMPT_IDS
from oprd.prompts.show import marked_tokens, own_response, plain_tokens, teacher_prompts
from oprd.secrets import without_secrets
from oprd.settings.run import OPRDConfig
from oprd.text import one_line
from oprd.training.trainer import OPRDTrainer

SHOWN = 3
# Where a run of nothing but defaults would write.
UNSET = "preview"
NO_DEFAULT = "–"


def show_settings(args: OPRDConfig, *further: Any) -> None:
    """Print the settings that are no defaults; further ones are dataclasses of plain fields."""
    table = Table("setting", "value", "default", title="Settings that are no defaults")
    for name, values in asked(args, *further).items():
        table.add_row(Text(name), *(Text(one_line(value)) for value in values))
    Console().print(table)


def asked(args: OPRDConfig, *further: Any) -> dict[str, tuple[Any, Any]]:
    """What differs from the defaults, each with its default, without secrets; see `changed`."""
    given = {
        field.name: (getattr(of, field.name), field.default)
        for of in further
        for field in fields(of)
        if field.default is not MISSING and getattr(of, field.name) != field.default
    }
    return {**given, **changed(args)}


def show_rollouts(trainer: OPRDTrainer, teacher_tokenizer: Any) -> None:
    """Print the first rollouts as both models read them.

    Args:
        trainer: of the run.
        teacher_tokenizer: the teacher's own; None where it has none.
    """
    with trainer.trying():
        batch = trainer.first_batch()[0]
    if not trainer.accelerator.is_main_process:
        return
    supervised = trainer.supervised(batch)
    for row in range(min(SHOWN, len(supervised))):
        for line in _rollout(trainer, teacher_tokenizer, batch, supervised, row):
            typer.echo(line)
    typer.echo("Tokens stand between |, those between ⟦ and ⟧ are supervised. Nothing was trained.")


def changed(args: OPRDConfig) -> dict[str, tuple[Any, Any]]:
    """The settings that are no defaults, each with its default, without secrets.

    To be asked before there is a trainer: Transformers' settings begin with a device of their own.
    """
    plain = OPRDConfig(output_dir=UNSET, use_cpu=args.use_cpu, report_to=[])
    now, then = args.to_dict(), plain.to_dict()
    names = [field.name for field in fields(args) if field.init and field.name in now]
    then["output_dir"] = NO_DEFAULT
    found = {name: (now[name], then.get(name)) for name in names if now[name] != then.get(name)}
    hidden = without_secrets({name: value for name, (value, _) in found.items()})
    return {name: (hidden[name], default) for name, (_, default) in found.items()}


def _rollout(
    trainer: OPRDTrainer, teacher_tokenizer: Any, batch: Any, supervised: Any, row: int
) -> Iterator[str]:
    tokenizer = trainer.tokenizer
    asked = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()].tolist()
    there = batch["completion_mask"][row].bool()
    written = batch["completion_ids"][row][there].tolist()
    marks = supervised[row][there].tolist()
    yield f"Prompt {row + 1}, {len(asked)} tokens: {plain_tokens(tokenizer, asked)}"
    yield (
        f"Response, {len(written)} tokens, {sum(marks)} supervised: "
        f"{marked_tokens(tokenizer, written, marks)}"
    )
    if OWN_IDS in batch:
        for own in teacher_prompts(batch, row):
            yield f"The teacher reads {len(own)} tokens: {plain_tokens(teacher_tokenizer, own)}"
        yield own_response(teacher_tokenizer, batch, row)
        return
    if PROMPT_IDS in batch:
        for own in teacher_prompts(batch, row):
            shown = plain_tokens(teacher_tokenizer or tokenizer, own)
            yield f"The teacher reads the same response after {len(own)} tokens: {shown}"
        return
    if teacher_tokenizer is None:
        yield "The teacher reads the same tokens."
        return
    read = plain_tokens(teacher_tokenizer, [*asked, *written])
    if read == plain_tokens(tokenizer, [*asked, *written]):
        yield "The teacher reads the same tokens, as the same text."
    else:
        yield f"The teacher reads the same tokens as other text: {read}"
