"""What `oprd inspect` found, as text.

Prompts, names and templates are strangers' text: they are shown escaped, and never as markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oprd.reports.bridge import rank_table
from oprd.text import escaped, shortened

Report = Mapping[str, Any]
ROLES = ("student", "teacher")
# Characters of a prompt, rows of the table of layers.
SHOWN, LAYERS = 400, 12


def print_tokens(report: Report, console: Console) -> None:
    """Print how both models read text: the first part of an inspection, known before they load."""
    tokens = report["tokens"]
    vocabulary, template, prompt = (tokens[name] for name in ("vocabulary", "template", "prompt"))
    table = Table("", *ROLES, "first difference", title="how text is read")
    counts = [f"{vocabulary[role]:,}" for role in ROLES]
    table.add_row("tokens", *counts, Text(_other_meaning(vocabulary)))
    templates = [_length(template[role]) for role in ROLES]
    table.add_row("chat template", *templates, Text(_difference(template)))
    lengths = [str(prompt[role].get("tokens", "refused")) for role in ROLES]
    table.add_row("tokens of the first prompt", *lengths, Text(_difference(prompt)))
    console.print(table)
    _say(console, f"First prompt as the student reads it: {_prompt(prompt['student'])}")
    theirs = _prompt(prompt["teacher"])
    if vocabulary["different"]:
        _say(console, f"As the teacher reads it, in tokens of its own: {theirs}")
    elif prompt["first_difference"]:
        _say(
            console,
            "As the teacher's own tokenizer writes it (in training it reads the student's tokens): "
            + theirs,
        )


def print_inspection(report: Report, console: Console) -> None:
    """Print what was measured on rollouts, and the advice with its reasons."""
    _print_rollouts(report, console)
    console.print(_layer_table(report["layers"]))
    for pairing in report["pairings"]:
        cosine = "" if pairing["cosine"] is None else f", cosine {pairing['cosine']:.3f}"
        _say(console, f"Pairs by {pairing['name']}: mean CKA {pairing['cka']:.3f}{cosine}.")
    if report["ends"] is not None:
        _say(console, _ends(report["ends"]))
    bridge = report["bridge"]
    looked_at = ", ".join(f"{layer['student']}:{layer['teacher']}" for layer in bridge["layers"])
    _say(console, f"A bridge of the pairs {looked_at}, on held-out rollouts:")
    console.print(rank_table(bridge["curve"]))
    console.print(_head_table(report["heads"]))
    if "memory" in report:
        _say(console, report["memory"]["said"])
    print_advice(report["advice"], console)


def print_advice(advice: Report, console: Console) -> None:
    """Print the settings that are advised, each with its reason."""
    settings = dict(advice["settings"])
    table = Table("setting", "value", "because", show_lines=True, title="advised settings")
    for setting, because in advice["reasons"]:
        # What is not set is advised against, or left to another run.
        value = str(settings.pop(setting, "-"))
        table.add_row(setting, Text(escaped(value)), Text(escaped(because)))
    for setting, value in settings.items():
        table.add_row(setting, Text(escaped(str(value))), "")
    console.print(table)
    console.print(Text(f"Advised: {advice['method']}.", style="bold"))


def _print_rollouts(report: Report, console: Console) -> None:
    models, rollouts, rows = report["models"], report["rollouts"], report["rows"]
    shapes = (f"{role} {models[role]['layers']} × {models[role]['width']}" for role in ROLES)
    _say(
        console,
        f"{' and '.join(shapes)} (layers × width), on {rollouts['count']} rollouts of the student: "
        f"{rollouts['mean_tokens']:.1f} tokens on average, {rollouts['cut']:.0%} cut at the limit, "
        f"{rollouts['empty']:.0%} empty; {rows['supervised']:,} supervised positions, of which "
        f"figures by layer are of {rows['drawn']:,}.",
    )
    if rows["own"]:
        _say(
            console,
            f"Both models have read the same at {rows['shared']:.1%} of the student's tokens, and "
            "figures are of these alone.",
        )
    ours, theirs = (", ".join(report["tokens"]["stops"][role]) for role in ROLES)
    same = "as with the teacher" if ours == theirs else f"with the teacher at {theirs}"
    _say(console, f"Responses end at {ours}, {same}.")


def _layer_table(layers: Sequence[Report]) -> Table:
    shown = layers
    if len(layers) > LAYERS:
        places = [round(n * (len(layers) - 1) / (LAYERS - 1)) for n in range(LAYERS)]
        shown = [layers[place] for place in places]
    title = "by pair of layers, student:teacher"
    title += "" if shown is layers else f" ({len(shown)} of {len(layers)})"
    names = ("pair", "cosine", "CKA", "teacher's size", "size ratio", "effective ranks")
    table = Table(*names, title=title)
    for layer in shown:
        size, rank = layer["size"], layer["effective_rank"]
        table.add_row(
            f"{layer['student']}:{layer['teacher']}",
            "-" if layer["cosine"] is None else f"{layer['cosine']:.3f}",
            f"{layer['cka']:.3f}",
            f"{size['teacher']:.3g}",
            f"{size['student'] / size['teacher']:.2f}" if size["teacher"] else "-",
            f"{rank['student']:.1f}, {rank['teacher']:.1f}",
        )
    return table


def _head_table(heads: Report) -> Table:
    table = Table("LM head", "tokens", "sees", "σ1 / σ", title="what the LM heads see of a state")
    for role in ROLES:
        head = heads[role]
        if "problem" in head:
            table.add_row(role, "-", Text(escaped(head["problem"])), "-")
            continue
        width = len(head["values"])
        sees = f"{head['rank']} of {width} directions"
        note = " (the student's)" if role == "teacher" and heads["same"] else ""
        table.add_row(role + note, f"{head['vocabulary']:,}", sees, f"{head['condition']:.1f}")
    return table


def _ends(ends: Report) -> str:
    """Cosines at either end, on a quarter of the longest response, and on all of it."""
    ks, quarter = ends["k"], ends["quarter"]
    parts = []
    for of, name in (("last", "last layer"), ("mean", "mean of layers")):
        first, last = (ends[end][of][quarter] for end in ("first_k", "last_k"))
        parts.append(
            f"{name} {first:.3f} on the first {ks[quarter]} tokens, {last:.3f} on the last "
            f"{ks[quarter]}, {ends['last_k'][of][-1]:.3f} on all"
        )
    return f"Cosine by place: {'; '.join(parts)}."


def _other_meaning(vocabulary: Report) -> str:
    if not vocabulary["different"]:
        return "none"
    index, ours, theirs = vocabulary["first_difference"]
    return escaped(f"id {index}: {ours!r}, {theirs!r} ({vocabulary['different']:,} differ)")


def _difference(compared: Report) -> str:
    difference = compared["first_difference"]
    if difference is None:
        return "none"
    student, teacher = (difference[role] for role in ROLES)
    return escaped(f"character {difference['at']}: {student!r}, {teacher!r}")


def _length(template: str | None) -> str:
    return "none" if template is None else f"{len(template):,} characters"


def _prompt(rendered: Report) -> str:
    return shortened(rendered.get("text", rendered.get("problem", "")), SHOWN)


def _say(console: Console, text: str) -> None:
    console.print(Text(escaped(text)))
