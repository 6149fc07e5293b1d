"""A student's card says what the run's files say, and nothing in a name becomes markup."""

import re

import pytest
import yaml

from oprd.runs.card import CARD, CardFacts, card_text, write_card
from oprd.runs.metrics import append_metrics
from oprd.runs.record import write_record

FACTS = CardFacts(steps=200, dataset="owner/data", prompts=1234, tags=["trl", "oprd"])
SETTINGS = {
    "layers": "last:2",
    "state_loss": "mse",
    "reduction": "sequence",
    "representation_weight": 1.0,
    "output_loss": "none",
    "output_weight": 1.0,
    "learning_rate": 1e-5,
    "bridge": None,
    "eval_samples": 4,
    "eval_temperature": 0.7,
}
RECORD = {
    "student": "owner/student",
    "teacher": "owner/teacher",
    "teacher_base": None,
    "layer_pairs": [[1, 2], [3, 4]],
    "bridges": {},
    "versions": {"oprd": "1.2.3"},
    "settings": SETTINGS,
}


def card(facts: CardFacts = FACTS, metrics=(), **record) -> str:
    return card_text({**RECORD, **record}, metrics, facts, "mine")


def header(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_models_data_layers_and_settings_of_the_run_are_in_the_card():
    text = card()
    assert header(text) == {
        "base_model": "owner/student",
        "datasets": ["owner/data"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["generated_from_trainer", "trl", "oprd"],
    }
    for line in (
        "# `mine`",
        "- Student: [owner/student](https://huggingface.co/owner/student)",
        "- Teacher: [owner/teacher](https://huggingface.co/owner/teacher)",
        "- Data: 1,234 prompts from [owner/data](https://huggingface.co/datasets/owner/data), "
        "plain text; the responses are the student's own",
        "- Layers that were compared, student:teacher: 1:2, 3:4",
        "| `layers` | `last:2` |",
        "| `learning_rate` | `1e-05` |",
        "| `oprd` | `1.2.3` |",
    ):
        assert f"\n{line}\n" in text
    assert (
        "fine-tuned copy of [owner/student](https://huggingface.co/owner/student). It was " in text
    )
    assert "trained for 200 steps" in text
    assert "None" not in text and "output_weight" not in text


def test_a_rate_that_was_found_is_said():
    record = {**RECORD, "settings": {**RECORD["settings"], "learning_rate": "auto"}}
    record["learning_rate_test"] = {"learning_rate": 2.5e-4}
    assert "| `learning_rate` | `auto, found: 0.00025` |" in card_text(record, [], FACTS, "run")


def test_an_adapter_is_called_one_and_is_loaded_as_one():
    text = card(CardFacts(steps=1, adapter=True), teacher_base="owner/base")
    assert header(text)["library_name"] == "peft"
    assert "A PEFT adapter on [owner/student]" in text and "AutoPeftModelForCausalLM" in text
    assert "on [owner/base](https://huggingface.co/owner/base)" in text


def test_of_local_paths_the_last_part_is_shown(tmp_path):
    for name in ("student", "data.jsonl"):
        (tmp_path / name).mkdir()
    settings = {
        **SETTINGS,
        "bridge": f"{tmp_path}/bridge.safetensors",
        "stages": [{"steps": 1, "bridge": f"{tmp_path}/other.safetensors"}, {"steps": 2}],
    }
    text = card(
        CardFacts(steps=1, dataset=f"{tmp_path}/data.jsonl", prompts=1, chat=True),
        student=f"{tmp_path}/student",
        teacher=f"{tmp_path}/run/checkpoint-40",
        settings=settings,
        bridges={"x": {"rank": 8, "basis": "pca", "rows": 12345, "cosine": [1.0]}},
    )
    assert "base_model" not in header(text) and "datasets" not in header(text)
    assert str(tmp_path) not in text and "huggingface.co/datasets" not in text
    for shown in ("`student`", "`run/checkpoint-40`", "`data.jsonl`, chat messages", "12,345 rows"):
        assert shown in text
    assert "`bridge.safetensors`" in text and "other.safetensors" in text


def test_a_folder_here_is_no_name_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "student").mkdir(parents=True)
    text = card()
    assert "base_model" not in header(text) and "Student: `student`\n" in text


HOSTILE = [
    "](javascript:alert(1))",
    "<script>alert(1)</script>",
    "`code` ``twofold`` `",
    "{{ 7 * 7 }}{% raw %}",
    "a | b",
    "\x1b[31mcrimson\u202e",
    "line\n# heading\n---\ntags: [x]",
    "'\"quotes\\",
    " ",
    "\udc80",
    "x" * 5000,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_in_a_name_is_markup(name: str):
    """A renderer that knows code spans, as Markdown has them, finds every name inside of one."""
    facts = CardFacts(steps=1, dataset=name, prompts=1, name=name, hub_id=name, tags=[name])
    text = card(facts, student=name, teacher=name, teacher_base=name, versions={name: name})
    body = text.split("## Use")[0].split("---\n")[-1] + text.split("## Training")[1]
    outside = re.sub(
        r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", re.sub(r"```.*?```", "", body, flags=re.S)
    )
    words = ["javascript", "<script", "{{", "{%", "heading", "crimson", "quotes", "xxx", "twofold"]
    assert not [word for word in words if word in outside]
    assert all(character.isprintable() or character == "\n" for character in body)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert "49" not in outside
    compile(text.split("```python\n")[1].split("```\n\n## Training")[0], "card", "exec")
    text.encode()


def test_the_first_and_the_last_evaluation_stand_there_with_their_intervals(tmp_path):
    write_record(tmp_path, {k: v for k, v in RECORD.items() if k != "settings"}, SETTINGS)
    for step, value in ((0, 0.1), (5, 0.2), (9, 0.6)):
        figures = {"avg@4": value, "avg@4_low": value - 0.05, "avg@4_high": value + 0.05}
        logs = {f"eval/{task}/{name}": v for task in ("sums", "a/b") for name, v in figures.items()}
        append_metrics(tmp_path, step, {"loss": 1.0})
        append_metrics(tmp_path, step, {**logs, "eval/sums/length": 5.0})
    write_card(tmp_path, FACTS)
    text = (tmp_path / CARD).read_text()
    assert "of 4 samples a problem at temperature 0.7, with 95% intervals over problems" in text
    assert "| task | figure | step 0 | step 9 |" in text
    assert "| `sums` | `avg@4` | 10.0% [5.0, 15.0] | 60.0% [55.0, 65.0] |" in text
    assert "| `a/b` | `avg@4` |" in text and "20.0%" not in text


def test_without_an_evaluation_and_before_a_run_there_is_a_card_all_the_same(tmp_path):
    write_card(tmp_path / "new", CardFacts(steps=0))
    text = (tmp_path / "new" / CARD).read_text()
    assert "Evaluation" not in text and "None" not in text
    assert "Student: a model built in memory" in text


@pytest.mark.parametrize(
    ("settings", "left_out"),
    [
        ({"representation_weight": 0, "output_loss": "topk"}, {"state_loss", "reduction"}),
        ({"output_loss": "none"}, {"output_weight"}),
        ({"stages": [{"steps": 1, "output_loss": "topk"}]}, set()),
    ],
)
def test_settings_of_a_term_that_there_is_not_are_left_out(settings, left_out):
    text = card(settings={**SETTINGS, **settings})
    found = {name for name in ("state_loss", "reduction", "output_weight") if f"`{name}`" in text}
    assert found == {"state_loss", "reduction", "output_weight"} - left_out
