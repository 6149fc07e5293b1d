"""The snippet of a card runs where the card stands."""

import re
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from peft import LoraConfig

from oprd import OPRDTrainer
from tests import tiny
from tests.evaluation.samples import chat_tokenizer
from tests.training.runs import LORA, PROMPTS, settings

CHAT = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]


def trained(folder: Path, prompts: list, **options) -> str:
    """The card of a student from a path, trained for a step."""
    places = [folder / "models" / name for name in ("student", "teacher")]
    for seed, place in enumerate(places):
        tiny.model(seed=seed).save_pretrained(place)
        chat_tokenizer("assistant: ").save_pretrained(place)
    made = OPRDTrainer(
        str(places[0]),
        str(places[1]),
        settings(folder / "out"),
        Dataset.from_dict({"prompt": prompts}),
        **options,
    )
    made.train()
    made.save_model()
    made.create_model_card()
    return (folder / "out" / "README.md").read_text()


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("prompts", [PROMPTS, CHAT], ids=["text", "messages"])
def test_the_snippet_runs_and_the_card_names_no_folder_of_this_machine(
    tmp_path, monkeypatch, capsys, lora, prompts
):
    text = trained(tmp_path, prompts, peft_config=LoraConfig(**LORA) if lora else None)
    assert str(tmp_path) not in text
    assert yaml.safe_load(text.split("---\n")[1])["tags"] == [
        "generated_from_trainer",
        "trl",
        "oprd",
    ]
    assert ("chat messages" in text) == ("apply_chat_template" in text) == (prompts is CHAT)
    assert "for 1 steps" in text and ("A PEFT adapter on `student`" in text) == lora
    (snippet,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path / "out")
    space: dict = {}
    exec(compile(snippet.replace("max_new_tokens=128", "max_new_tokens=4"), "card", "exec"), space)
    assert space["output"].shape[1] > space["inputs"]["input_ids"].shape[1]
    assert capsys.readouterr().out


def test_a_checkpoints_card_has_the_folders_name_and_given_names_and_tags_win(tmp_path):
    made = OPRDTrainer(
        tiny.model(seed=1),
        tiny.model(seed=2),
        settings(tmp_path / "mine", save_strategy="steps", save_steps=1),
        Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=tiny.tokenizer(),
        teacher_processing_class=tiny.tokenizer(),
    )
    made.train()
    card = tmp_path / "mine" / "README.md"
    assert "# `mine`\n" in card.read_text() and "a model built in memory" in card.read_text()
    made.create_model_card("named", "owner/data", "extra")
    text = card.read_text()
    assert "# `named`\n" in text and "- extra\n" in text and "owner/data" in text
