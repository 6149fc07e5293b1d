import math

import pytest
import torch
from peft import LoraConfig
from typer.testing import CliRunner

from oprd.analysis.replay import broken_states, replay
from oprd.cli.main import app
from oprd.models.reading import View
from tests import tiny
from tests.guards.test_finite import DOWN, broken
from tests.training.runs import LORA, PROMPTS, trainer

HANDS_OVER = {"from": 1, "to": 0, "steps": 1}


@pytest.fixture
def teacher(tmp_path):
    folder = tmp_path / "teacher"
    broken(2).save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def stopped(folder, **options):
    with pytest.raises(FloatingPointError) as found:
        trainer(folder, **options).train()
    return str(found.value).rpartition("--replay ")[2]


def test_a_replay_names_the_tensor_the_layer_and_the_token(tmp_path, teacher):
    run = tmp_path / "run"
    place = stopped(
        run, teacher=teacher, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    assert place == str(run / "broken" / "step-000001")
    found = dict(replay(run / "broken" / "step-000001"))
    assert found["weights of the teacher"] == DOWN
    assert found["weights of the student"] is None
    for number in (0, 1):
        here = f"rank 0, micro-batch {number}: "
        assert found[f"{here}states of the teacher"].startswith("layer 2, at ")
        assert found[f"{here}states of the student"] is None
        assert found[f"{here}loss"] == "loss/representation is nan"
        assert found[f"{here}gradient"].startswith("of model.")


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output_loss": "reverse_kl"},
        {"stages": [{"steps": 1, "state_loss": "gram"}]},
        {"output_loss": "reverse_kl", "max_steps": 2, "representation_weight": HANDS_OVER},
        {"peft_config": LoraConfig(**LORA)},
    ],
    ids=["states", "output", "stages", "hands over", "adapter"],
)
def test_another_teacher_shows_that_it_was_the_teacher(tmp_path, teacher, options):
    sound = tmp_path / "sound"
    tiny.model(seed=2).save_pretrained(sound)
    tiny.tokenizer().save_pretrained(sound)
    base = tmp_path / "base"
    tiny.model(seed=1).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    place = stopped(tmp_path / "run", student=str(base), teacher=teacher, **options)
    assert not any(found.broken for found in replay(tmp_path / place, teacher=str(sound)))
    assert any(found.broken for found in replay(tmp_path / place))


def test_the_command_prints_what_is_broken(tmp_path, teacher):
    place = stopped(tmp_path / "run", teacher=teacher)
    result = CliRunner().invoke(app, ["doctor", "--replay", place], env={"COLUMNS": "200"})
    assert result.exit_code == 1, result.output
    assert "weights of the teacher" in result.stdout and DOWN in result.stdout
    nothing = CliRunner().invoke(app, ["doctor", "--replay", str(tmp_path / "nothing")])
    assert nothing.exit_code == 1
    assert "holds no batch that a run kept: give the folder that it named" in nothing.stderr
    alone = CliRunner().invoke(app, ["doctor", "--teacher", teacher])
    assert alone.exit_code == 1 and "belong to --replay" in alone.stderr


def test_a_teacher_that_was_built_in_memory_must_be_given(tmp_path, teacher):
    place = stopped(tmp_path / "run", teacher=broken(2))
    with pytest.raises(ValueError, match=r"does not say where its teacher is: give --teacher\."):
        replay(tmp_path / place)
    assert any(found.broken for found in replay(tmp_path / place, teacher=teacher))


def test_the_first_broken_state_is_found_at_its_token():
    model = tiny.model(seed=1)
    ids, mask = tiny.batch((5, 3))
    view = View.of_texts(ids, mask)
    assert broken_states(model, view) is None

    def overflow(module, inputs, output):
        output[0, 2, 0] = math.inf

    model.base_model.layers[1].mlp.register_forward_hook(overflow)
    said = "layer 2, at 1 of 8 tokens, first at token 2 of sequence 0"
    assert broken_states(model, view) == said


def test_padding_is_not_looked_at():
    model = tiny.model(seed=1)
    ids, mask = tiny.batch((5, 3))
    with torch.no_grad():
        model.get_input_embeddings().weight[tiny.PAD] = 0
    assert broken_states(model, View.of_texts(ids, mask)) is None


def saved(folder, model):
    model.save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return str(folder)


def test_the_batch_of_several_teachers_is_met_by_each_with_its_own_rows(tmp_path, teacher):
    sound = saved(tmp_path / "sound", tiny.model(seed=3))
    base = saved(tmp_path / "base", tiny.model(seed=1))
    place = stopped(
        tmp_path / "run",
        student=base,
        teachers=[{"name": "a", "source": sound}, {"name": "b", "source": teacher}],
        teacher_batches="mixed",
        columns={"teacher": ["a", "b"] * 8},
        shuffle_dataset=False,
    )
    found = dict(replay(tmp_path / place))
    here = "rank 0, micro-batch 0: "
    assert found["weights of the teacher b"] == DOWN and found["weights of the teacher a"] is None
    assert found[f"{here}states of the teacher a"] is None
    assert found[f"{here}states of the teacher b"].startswith("layer 2, at ")
    with pytest.raises(ValueError, match="has several teachers"):
        replay(tmp_path / place, teacher=sound)


def test_a_batch_past_the_teacher_goes_on_from_the_runs_reference(tmp_path, teacher):
    sound = saved(tmp_path / "sound", tiny.model(seed=2))
    base = saved(tmp_path / "base", tiny.model(seed=1))
    options = {"extrapolation": 1.5, "teacher_template": "x {{ prompt }}"}
    place = stopped(
        tmp_path / "run", student=base, teacher=sound, args_reference=teacher, **options
    )
    found = dict(replay(tmp_path / place))
    assert found["weights of the reference"] == DOWN
    assert found["rank 0, micro-batch 0: loss"] == "loss/representation is nan"
    assert found["rank 0, micro-batch 0: states of the teacher"] is None


def test_a_students_own_base_meets_its_batch_again(tmp_path):
    base = saved(tmp_path / "base", tiny.model(seed=1))
    made = trainer(
        tmp_path / "run",
        student=base,
        columns={"teacher_prompt": [f"x {prompt}" for prompt in PROMPTS]},
        peft_config=LoraConfig(**LORA),
        teacher_source="base",
    )
    trained = next(p for p in made.student.parameters() if p.requires_grad)
    trained.register_hook(lambda gradient: gradient * math.nan)
    with pytest.raises(FloatingPointError, match="gradient"):
        made.train()
    found = replay(tmp_path / "run" / "broken" / "step-000001")
    assert "rank 0, micro-batch 0: states of the teacher" in dict(found)
    assert not any(looked.broken for looked in found)
