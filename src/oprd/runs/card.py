"""The model card of a trained student: what it is, how it was made, how good it is, how it is used.

What it says is the run's own record and log. Names are whatever a user gave: each is shown as code,
or as a link where it can be a name on the hub, so that none is markup; of a local path only the
last part is shown, because cards are published.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from oprd.runs.checkpoints import CHECKPOINT
from oprd.runs.manifest import CARD
from oprd.runs.metrics import METRICS, read_metrics
from oprd.runs.record import RATE_TEST, read_record
from oprd.runs.shown import SHOWN
from oprd.runs.snippet import snippet
from oprd.secrets import masked
from oprd.text import escaped, shortened

HUB = "https://huggingface.co"
PAPER = {
    "title": "OPRD: On-Policy Representation Distillation",
    "id": "2606.06021",
    "citation": """\
@misc{oprd2026,
    title         = {{OPRD: On-Policy Representation Distillation}},
    year          = 2026,
    eprint        = {2606.06021},
    archivePrefix = {arXiv},
}""",
}
# Of a value, and of a name.
LONGEST = 200
# A figure of a task in the log, whose ends of an interval are logged under names of their own.
FIGURE = re.compile(r"eval/(?P<task>.+)/(?P<name>avg@\d+)")


@dataclass(frozen=True)
class CardFacts:
    """What a card says that a run's record does not.

    Attributes:
        steps: that were trained.
        dataset: where the prompts are from; None where it is not known.
        prompts: how many there are; None for a stream.
        chat: whether they are messages of a chat.
        adapter: whether the student is a PEFT adapter.
        name: of the model; by default that of its folder.
        hub_id: of the repository to which it is pushed.
        tags: beside the usual ones.
        license: of the student, as the hub writes it.
        evaluations: sections of evaluations after training, as Markdown.
    """

    steps: int
    dataset: str | None = None
    prompts: int | None = None
    chat: bool = False
    adapter: bool = False
    name: str | None = None
    hub_id: str | None = None
    tags: Sequence[str] = ()
    license: str | None = None
    evaluations: Sequence[str] = ()


def write_card(folder: Path, facts: CardFacts) -> None:
    """Write the card of a run's student beside it."""
    record = read_record(folder) or {}
    lines = read_metrics(folder) if (folder / METRICS).is_file() else []
    save_card(folder, card_text(record, lines, facts, folder.resolve().name))


def save_card(folder: Path, text: str) -> None:
    """Write a card beside a student, without secrets."""
    folder.mkdir(parents=True, exist_ok=True)
    ModelCard(masked(text)).save(folder / CARD)


def card_text(
    record: Mapping[str, Any], metrics: Sequence[Mapping[str, Any]], facts: CardFacts, folder: str
) -> str:
    """The card.

    Args:
        record: of the run; empty before it began.
        metrics: the lines of its log.
        facts: further ones.
        folder: the name of the student's.
    """
    student, settings = record.get("student"), dict(record.get("settings") or {})
    if found := record.get(RATE_TEST):
        settings["learning_rate"] = f"auto, found: {found['learning_rate']:g}"
    dataset = facts.dataset
    data = ModelCardData(
        license=facts.license,
        base_model=student if _is_on_hub(student) else None,
        datasets=[dataset] if dataset and _is_on_hub(dataset, owned=True) else None,
        library_name="peft" if facts.adapter else "transformers",
        pipeline_tag="text-generation",
        tags=[*dict.fromkeys(["generated_from_trainer", *facts.tags])],
    )
    use = snippet(adapter=facts.adapter, chat=facts.chat, hub_id=facts.hub_id)
    made = [_model("Student", student), *_teacher(record), _data(facts)]
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {_code(facts.name or folder)}",
        f"{_what(student, facts)} It was trained for {facts.steps} steps by "
        f"[{PAPER['title']}]({HUB}/papers/{PAPER['id']}), on-policy: it wrote responses, the "
        "teacher read them, and the student was pulled to what the teacher computed.",
        f"## Use\n\n```python\n{use}\n```",
        "## Training\n\n" + "\n".join(f"- {line}" for line in [*made, *_layers(record)]),
        _table(("setting", "value"), [*map(_codes, shown_settings(settings))]),
        *_evaluation(metrics, settings),
        *_afterwards(facts),
        "## Versions\n\n" + _table(("package", "version"), _versions(record)),
        f"## Citation\n\n```bibtex\n{PAPER['citation']}\n```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _what(student: str | None, facts: CardFacts) -> str:
    kind, word = ("A PEFT adapter", "on") if facts.adapter else ("A fine-tuned copy", "of")
    return f"{kind} {word} {_named(student)}." if student else f"{kind}."


def _model(role: str, name: str | None) -> str:
    return f"{role}: {_named(name) if name else 'a model built in memory'}"


def _teacher(record: Mapping[str, Any]) -> list[str]:
    base = record.get("teacher_base")
    return [_model("Teacher", record.get("teacher")) + (f", on {_named(base)}" if base else "")]


def _data(facts: CardFacts) -> str:
    form = "chat messages" if facts.chat else "plain text"
    count = "a stream of prompts" if facts.prompts is None else f"{facts.prompts:,} prompts"
    source = f" from {_named(facts.dataset, 'datasets/')}" if facts.dataset else ""
    return f"Data: {count}{source}, {form}; the responses are the student's own"


def _layers(record: Mapping[str, Any]) -> list[str]:
    pairs = ", ".join(f"{student}:{teacher}" for student, teacher in record.get("layer_pairs", ()))
    found = [f"Layers that were compared, student:teacher: {pairs}"] if pairs else []
    for bridge in (record.get("bridges") or {}).values():
        found.append(
            f"Bridge: rank {bridge['rank']}, basis {_code(bridge['basis'])}, fitted on "
            f"{bridge['rows']:,} rows"
        )
    return found


def shown_settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Settings that say how a student was trained, as names and text; without folders."""
    left_out = _without_effect(settings)
    rows = []
    for name in SHOWN:
        value = settings.get(name)
        if value is None or name in left_out:
            continue
        shown = json.dumps(_without_folders(value)) if name == "stages" else value
        shown = last_part(str(value)) if name == "bridge" else shown
        rows.append((name, shown if isinstance(shown, str) else json.dumps(shown)))
    return rows


def _without_folders(stages: Any) -> Any:
    """Stages as they are, whatever they are, apart from the folders of bridges."""
    if isinstance(stages, list):
        return [_without_folders(stage) for stage in stages]
    if not isinstance(stages, Mapping):
        return stages
    return {n: last_part(str(v)) if n == "bridge" and v else v for n, v in stages.items()}


def _without_effect(settings: Mapping[str, Any]) -> set[str]:
    """Settings of a term that there is not; a stage may have it."""
    if settings.get("stages"):
        return set()
    of_states = {"state_loss", "state_loss_kwargs", "scale", "reduction", "bridge"}
    of_output = {"output_loss_kwargs", "output_weight"}
    unused = of_states if settings.get("representation_weight") == 0 else set()
    return unused | (of_output if settings.get("output_loss") == "none" else set())


def _evaluation(metrics: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> list[str]:
    """A table of the first and the last figures of each task, nothing where there are none."""
    evaluated = [line for line in metrics if any(map(FIGURE.fullmatch, line))]
    if not (shown := evaluated[:1] + evaluated[1:][-1:]):
        return []
    rows = [
        (_code(found["task"]), _code(found["name"]), *(_estimate(line, name) for line in shown))
        for name in evaluated[-1]
        if (found := FIGURE.fullmatch(name))
    ]
    header = ("task", "figure", *(f"step {line['step']}" for line in shown))
    sampling = (
        f"Mean accuracy of {settings.get('eval_samples')} samples a problem at temperature "
        f"{settings.get('eval_temperature')}, with 95% intervals over problems."
    )
    return [f"## Evaluation\n\n{sampling}\n\n{_table(header, rows)}"]


def _afterwards(facts: CardFacts) -> list[str]:
    """Evaluations of whole models beside each other."""
    if not facts.evaluations:
        return []
    legend = (
        "[low, high] is a 95% interval with problems as the unit; differences are paired by "
        "problem, and p is of swapping two models problem by problem, corrected by Holm."
    )
    return ["## Before and after", *facts.evaluations, legend]


def _estimate(line: Mapping[str, Any], name: str) -> str:
    values = [line.get(f"{name}{end}") for end in ("", "_low", "_high")]
    if not all(isinstance(value, int | float) for value in values):
        return "–"
    value, low, high = (100 * float(value) for value in values if value is not None)
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def _versions(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(_code(name), _code(found)) for name, found in record.get("versions", {}).items()]


def _named(name: str, kind: str = "") -> str:
    """A name as a link to the hub, or as code."""
    if _is_on_hub(name, owned=bool(kind)):
        return f"[{name}]({HUB}/{kind}{name})"
    return _code(last_part(name))


def _is_on_hub(name: str | None, *, owned: bool = False) -> bool:
    """Whether a name can be one on the hub, and is none here.

    Args:
        name: a path, or the name of a model or a dataset.
        owned: whether only one with its owner counts.
    """
    if not name or (owned and "/" not in name):
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def shown_name(name: str) -> str:
    """One on the hub with its owner, and the end of a path."""
    return name if _is_on_hub(name) else last_part(name)


def last_part(name: str) -> str:
    """The end of a path; of a checkpoint's with its run."""
    path = Path(name)
    if CHECKPOINT.fullmatch(path.name) and path.parent.name:
        return f"{path.parent.name}/{path.name}"
    return path.name or name


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _codes(row: tuple[str, str]) -> tuple[str, str]:
    return _code(row[0]), _code(row[1])


def _code(text: str) -> str:
    """Text as code, which nothing in it ends."""
    shown = escaped(shortened(text, LONGEST))
    longest = max((len(run) for run in re.findall("`+", shown)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest or not shown.strip() else ""
    return f"{fence}{space}{shown or '-'}{space}{fence}"
