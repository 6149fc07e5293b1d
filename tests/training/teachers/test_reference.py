"""Targets beyond the teacher, on the line from a reference through it."""

import copy

import pytest
import torch
from peft import LoraConfig

from oprd.training.teachers import source
from tests import tiny
from tests.training import runs
from tests.training.runs import LORA, largest_difference, scripted, trainer, weights

PROMPTS = runs.PROMPTS[:8]


def step(folder, **options):
    """The loss of one step on all prompts, and the weights after it."""
    plain = {"per_device_train_batch_size": 8, "prompts": PROMPTS}
    made = trainer(folder, **{**plain, **options})
    made.train()
    return made.state.log_history[0]["loss"], weights(made.student)


def lineage(**options):
    """A reference, and a student and a teacher near it."""
    reference = tiny.model(seed=1, **options)
    others = []
    for seed in (2, 3):
        made = copy.deepcopy(reference)
        generator = torch.Generator().manual_seed(seed)
        for parameter in made.parameters():
            parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
        others.append(made)
    return {"reference_model": reference, "student": others[0], "teacher": others[1]}


def states(model, prompt, own=None):
    ids = tiny.tokenizer()(prompt)["input_ids"]
    read = tiny.tokenizer()(own)["input_ids"] if own else ids
    response = scripted(ids)
    with torch.no_grad():
        hidden = model(torch.tensor([read + response]), output_hidden_states=True).hidden_states
    return torch.stack([layer[0, len(read) - 1 : -1] for layer in hidden[1:]])


@pytest.mark.parametrize("power", [0, 1, 2])
@pytest.mark.parametrize("factor", [0.75, 1.5])
def test_the_loss_is_the_distance_to_the_point_beyond_the_teacher(tmp_path, factor, power):
    models = lineage()
    losses = []
    for prompt in PROMPTS:
        own = f"hint {prompt}"
        student = states(models["student"], prompt)
        teacher, reference = (
            states(models[n], prompt, own) for n in ("teacher", "reference_model")
        )
        target = teacher + (factor - 1) * (teacher - reference)
        losses.append((student - target).square().mean())
    options = {"extrapolation": factor, "extrapolation_power": power}
    loss, _ = step(tmp_path, **models, **options, teacher_template="hint {{ prompt }}")
    assert loss == pytest.approx(torch.stack(losses).mean().item() * factor**-power, rel=1e-4)


def test_one_is_the_teacher_to_the_bit_and_loads_no_reference(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a reference was loaded")

    monkeypatch.setattr(source, "load_teacher", refuse)
    models = lineage()
    del models["reference_model"]
    plain = step(tmp_path / "plain", **copy.deepcopy(models))
    named = step(tmp_path / "one", **models, extrapolation=1.0, args_reference="nowhere/model")
    assert named[0] == plain[0] and largest_difference(plain[1], named[1]) == 0


def test_at_unit_length_the_distance_keeps_its_size(tmp_path):
    options = {"extrapolation": 1.5, "scale": "unit"}
    losses = [
        step(tmp_path / str(power), **lineage(), **options, extrapolation_power=power)[0]
        for power in (0, 2)
    ]
    assert losses[0] == losses[1]


def test_the_students_base_may_be_the_reference(tmp_path, places):
    base, adapter = places
    options = {"peft_config": LoraConfig(**LORA), "extrapolation": 1.25}
    made = trainer(
        tmp_path / "run", student=base, teacher=adapter, args_reference="base", **options
    )
    count = sum(1 for _ in made.student.parameters())
    made.train()
    assert made.shares_base and sum(1 for _ in made.student.parameters()) == count
    named = trainer(tmp_path / "2", student=base, teacher=adapter, args_reference=base, **options)
    torch.manual_seed(0)
    named.train()
    logged = [made.state.log_history[0]["loss"] for made in (made, named)]
    assert logged[0] == pytest.approx(logged[1], rel=1e-4)


def test_a_reference_that_is_an_adapter_is_merged_into_its_base(tmp_path, places):
    base, adapter = places
    options = {"extrapolation": 1.25, "teacher": tiny.model(seed=1)}
    loss, _ = step(tmp_path / "run", student=tiny.model(seed=1), args_reference=adapter, **options)
    assert loss > 0 and base


def test_it_resumes_bit_for_bit(tmp_path):
    options = {
        "extrapolation": 1.5,
        "optim": "adamw_torch",
        "learning_rate": 1e-3,
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "rollout": None,
    }

    def finish(folder, resume=None):
        made = trainer(folder, **lineage(), **options)
        made.train(resume_from_checkpoint=resume)
        return weights(made.student)

    whole = finish(tmp_path / "whole")
    resumed = finish(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert largest_difference(whole, resumed) == 0


def test_a_reference_of_another_lineage_is_warned_of(tmp_path, caplog):
    step(tmp_path / "1", **lineage(), extrapolation=1.25)
    assert "not to be of one lineage" not in caplog.text
    step(tmp_path / "2", reference_model=tiny.model(seed=9), extrapolation=1.25)
    assert "not to be of one lineage" in caplog.text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"extrapolation": 1.25}, "set reference_model to what the teacher was trained from"),
        ({"extrapolation": 0.0}, "extrapolation must be"),
        ({"extrapolation": -1.0}, "extrapolation must be"),
        ({"extrapolation": float("nan")}, "extrapolation must be"),
        ({"extrapolation_power": 3}, "extrapolation_power must be 0, 1 or 2"),
        (
            {"extrapolation": 1.25, "reference_model": tiny.model(seed=3, num_hidden_layers=2)},
            r"one lineage of equal widths.*the teacher 3 × 32, the reference 2 × 32",
        ),
        (
            {
                "extrapolation": 1.25,
                "reference_model": tiny.model(seed=3),
                "bridge": "fit",
                "bridge_rank": 4,
            },
            "leave the bridge out",
        ),
        (
            {"extrapolation": 1.25, "args_reference": "base"},
            "this student trains its base",
        ),
    ],
)
def test_what_has_no_beyond_is_refused_at_construction(tmp_path, options, problem):
    with pytest.raises(ValueError, match=problem):
        trainer(tmp_path, **options)


def test_a_reference_that_trains_with_the_student_is_refused(tmp_path):
    student = tiny.model(seed=1)
    with pytest.raises(ValueError, match="shares weights with the student"):
        trainer(tmp_path, student=student, reference_model=student, extrapolation=1.25)
