"""`oprd train --preview` shows a run as it would begin, and leaves everything as it was."""

import pytest
from typer.testing import CliRunner

from oprd.cli.main import app
from oprd.cli.preview import changed
from tests import tiny
from tests.docs.test_recipes import places  # noqa: F401 # a fixture
from tests.training import runs

ARGUMENTS = {
    "model_name_or_path": "student",
    "teacher_model_name_or_path": "teacher",
    "dataset_name": "prompts.jsonl",
    "output_dir": "run",
    "max_completion_length": "8",
    "per_device_train_batch_size": "4",
    "use_cpu": "true",
    "report_to": "none",
}


@pytest.fixture
def preview(places, monkeypatch):  # noqa: F811 # the fixture
    monkeypatch.chdir(places)

    def run(**options):
        given = {**ARGUMENTS, **options}
        arguments = [part for name, value in given.items() for part in (f"--{name}", value)]
        return CliRunner().invoke(app, ["train", "--preview", *arguments])

    return run


def test_the_first_rollouts_are_shown_token_by_token_and_nothing_trains(preview, places):  # noqa: F811
    result = preview(positions="last_k", position_k="3")
    assert result.exit_code == 0, result.output
    assert "Prompt 3, " in result.output
    assert "w|h|a|t| |i|s" in result.output
    assert "8 tokens, 3 supervised: " in result.output
    assert "The teacher reads the same tokens, as the same text." in result.output
    assert result.output.rstrip().endswith("Nothing was trained.")
    assert not list((places / "run").iterdir())


def test_only_settings_that_are_no_defaults_are_shown_each_with_its_default(preview):
    shown = preview(learning_rate="3e-4", layers="last").output
    (rate,) = [line for line in shown.splitlines() if "learning_rate" in line]
    assert "0.0003" in rate and "1e-05" in rate
    assert any("layers" in line and "last" in line and "all" in line for line in shown.splitlines())
    assert "adam_beta1" not in shown
    assert any("dataset_name" in line and "prompts.jsonl" in line for line in shown.splitlines())


def test_a_hostile_prompt_is_shown_escaped(preview, places):  # noqa: F811
    (places / "prompts.jsonl").write_text('{"prompt": "\\u001b[31m[bold]red"}\n' * 8)
    shown = preview().output
    assert "\x1b[31m" not in shown
    assert "\\x1b|[|3|1|m|[|b|o|l|d|]" in shown


def test_secrets_are_hidden(tmp_path):
    args = runs.settings(tmp_path, teacher_model_init_kwargs={"token": "hf_secret"})
    assert changed(args)["teacher_model_init_kwargs"] == ({"token": "<hidden>"}, None)


def test_a_preview_of_a_run_leaves_it_as_it_was(tmp_path):
    def losses(first):
        made = runs.trainer(tmp_path, max_steps=2, rollout=None)
        if first:
            with made.trying():
                made.first_batch()
        # What is tried draws other rollouts, unless the random states are put back.
        tiny.torch.manual_seed(0)
        made.train()
        return [line["num_tokens"] for line in made.state.log_history if "loss" in line]

    assert losses(first=True) == losses(first=False)


def test_the_teachers_own_prompt_is_shown_in_the_place_of_the_students(preview):
    shown = preview(teacher_template="Hint. {{ prompt }}").output
    assert "The teacher reads the same response after 17 tokens: H|i|n|t|.| |w|h|a|t" in shown
    assert "The teacher reads the same tokens" not in shown


@pytest.mark.parametrize(
    "setting", [{"bridge": "fit", "bridge_rank": "2"}, {"layer_pairing": "similarity"}]
)
def test_what_is_measured_when_training_begins_is_not_measured_to_look(preview, places, setting):  # noqa: F811
    result = preview(**setting)
    assert result.exit_code == 0, result.output
    assert result.output.rstrip().endswith("Nothing was trained.")
    assert not list((places / "run").iterdir())
