"""`oprd recipes` shows what there is to begin from, and copies it."""

import pytest
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.cli.recipes import all_recipes, first_sentence


def run(*arguments):
    return CliRunner().invoke(app, ["recipes", *map(str, arguments)])


def test_every_recipe_is_listed_with_what_it_is_for():
    shown = run().output
    for name, text in all_recipes().items():
        (line,) = [line for line in shown.splitlines() if line.startswith(f"{name} ")]
        assert 10 < len(first_sentence(text)) < 120
        assert line.endswith(first_sentence(text))


def test_a_recipe_is_copied_whole_and_its_way_on_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("quickstart").output.endswith("    oprd train --config quickstart.yaml\n")
    assert (tmp_path / "quickstart.yaml").read_text() == all_recipes()["quickstart"]


def test_the_way_on_is_the_recipes_own_with_the_files_name(tmp_path):
    launch = "accelerate launch --config_file fsdp2.yaml -m oprd train --config"
    assert run("fsdp2", "--to", tmp_path / "a.yaml").output.endswith(
        f"    accelerate launch --config_file {tmp_path}/a.yaml -m oprd train --config paper.yaml\n"
    )
    shown = run("paper", "--to", tmp_path / "mine.yaml").output
    assert shown.endswith(f"    {launch} {tmp_path}/mine.yaml\n")


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    file = tmp_path / "mine.yaml"
    assert run("lora.yaml", "--to", file).exit_code == 0
    file.write_text("mine")
    again = run("lora", "--to", file)
    assert again.exit_code == 1
    assert "is there already: name another with --to." in again.output
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("name", "hint"), [("quikstart", "did you mean quickstart?"), ("zz", "there are bridge, ")]
)
def test_an_unknown_recipe_is_refused_with_what_there_is(name, hint):
    result = run(name)
    assert result.exit_code == 1
    assert f"there is no recipe {name!r}: {hint}" in result.output
