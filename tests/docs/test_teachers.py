"""Every configuration that the page on teachers shows is run, with tiny models in their place."""

import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.models.blocks import drop_blocks
from tests import tiny
from tests.docs.test_recipes import OVERRIDES, places  # noqa: F401 # a fixture
from tests.serving.server import StandIn, serving

PAGE = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text()
SHOWN = re.findall(r"^```yaml\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(SHOWN)))
def test_a_configuration_of_the_page_trains(number, places, monkeypatch):  # noqa: F811
    monkeypatch.chdir(places)
    rows = [{"prompt": f"what is {n}?", "solution": f"It is {n}."} for n in range(32)]
    routed = [{**row, "teacher": ("sums", "words")[n % 2]} for n, row in enumerate(rows)]
    for name, found in (("solved.jsonl", rows), ("routed.jsonl", routed)):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in found))
    whole = tiny.model(seed=4, num_hidden_layers=4)
    for name, model in (("whole", whole), ("pruned", drop_blocks(whole, (2,)))):
        model.save_pretrained(name)
        tiny.tokenizer().save_pretrained(name)
    Path("config.yaml").write_text(SHOWN[number])
    overrides = {**OVERRIDES, "logging_steps": "1"}
    with ExitStack() as servers:
        if "teacher_source: server" in SHOWN[number]:
            Path("states").mkdir()
            stand_in = StandIn(tiny.model(seed=2), tiny.tokenizer(), Path("states"))
            overrides["teacher_server_url"] = servers.enter_context(serving(stand_in))
            overrides["teacher_server_folder"] = "states"
        arguments = [part for name, value in overrides.items() for part in (f"--{name}", value)]
        result = CliRunner().invoke(app, ["train", "--config", "config.yaml", *arguments])
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2]


def test_the_page_shows_some():
    assert SHOWN


def test_every_way_of_the_table_at_the_top_leads_to_a_section():
    sections = re.findall(r"^## (.*)$", PAGE, flags=re.MULTILINE)
    found = {title.lower().replace(" ", "-") for title in sections}
    ways = re.findall(r"\]\(#([^)]+)\)", PAGE)
    assert len(ways) >= 6 and set(ways) <= found
