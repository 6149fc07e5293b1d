"""Teachers that are made of the student: its base, itself as it was, the mean of what it was."""

import copy
import json

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from oprd.models.average import FILE
from oprd.models.probe import probe
from oprd.models.reading import View
from oprd.models.shared_base import adapter_pairs
from oprd.models.views import Views
from tests import tiny
from tests.training import runs
from tests.training.runs import LORA, largest_difference, trainer, weights

PROMPTS = runs.PROMPTS[:8]
HINTED = {"teacher_prompt": [f"it is {n}. {prompt}" for n, prompt in enumerate(PROMPTS)]}
SAME = "have the same states: the loss will be 0"


def run(folder, source, *, lora=False, **options):
    plain = {"optim": "adamw_torch", "learning_rate": 1e-2, "prompts": PROMPTS, "columns": HINTED}
    if lora:
        plain |= {"peft_config": LoraConfig(**LORA, **({} if lora is True else lora))}
    return trainer(folder, teacher_source=source, **{**plain, **options})


def adapted(seed=5, called="default", **options):
    """A student with an adapter that is not what it began as."""
    model = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA, **options), called)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3
    return model


def taught(made):
    """The last states that the teacher has on a few tokens."""
    ids = torch.arange(12).reshape(2, 6) + 60
    views = Views((View.of_texts(ids),))
    return made._teacher.reader.read(made.student, views, [], last=True).last


def last(model):
    ids = torch.arange(12).reshape(2, 6) + 60
    with torch.no_grad():
        return model(ids, output_hidden_states=True).hidden_states[-1].flatten(0, 1)


def test_the_base_reads_without_the_students_adapter_and_is_held_once(tmp_path):
    student = adapted()
    count = sum(1 for _ in student.parameters())
    made = run(tmp_path, "base", student=student, max_steps=2)
    made.train()
    assert made.shares_base and made.teacher_model is None
    assert sum(1 for _ in made.student.parameters()) == count
    torch.testing.assert_close(taught(made), last(tiny.model(seed=1)))
    assert (taught(made) - last(made.student.eval())).abs().max() > 0.1


def test_a_base_of_which_an_adapter_trains_whole_modules_is_refused(tmp_path):
    student = adapted(modules_to_save=["lm_head"])
    with pytest.raises(ValueError, match="student trains its base"):
        run(tmp_path, "base", student=student)


@pytest.mark.parametrize("options", [{}, {"lora": True}], ids=["whole", "adapter"])
def test_a_copy_stays_what_the_student_was(tmp_path, options):
    student = adapted() if options else tiny.model(seed=1)
    before = last(student)
    made = run(tmp_path, "copy", student=student, max_steps=2)
    assert torch.equal(taught(made), before)
    made.train()
    assert torch.equal(taught(made), before)
    assert (last(made.student.eval()) - before).abs().max() > 1e-3
    assert made.shares_base == bool(options)


def test_a_copy_of_an_adapter_needs_no_second_base_and_changes_no_bit_of_the_student(tmp_path):
    student = adapted(init_lora_weights="gaussian")
    before = probe(student).logits
    names = {name for name, p in student.named_parameters() if p.requires_grad}
    made = run(tmp_path, "copy", student=student)
    assert torch.equal(probe(made.student).logits, before)
    assert {name for name, p in made.student.named_parameters() if p.requires_grad} == names
    added = [name for name, _ in made.student.named_parameters() if "oprd_teacher" in name]
    assert added and all("lora_" in name for name in added)


def frozen():
    """A student whose embedding does not train."""
    student = tiny.model(seed=1)
    student.get_input_embeddings().requires_grad_(False)
    return student


def shared(made):
    """Weights that the teacher has in common with the student."""
    own = dict(made.student.named_parameters())
    return [n for n, p in made._teacher.reader.model.named_parameters() if p is own[n]]


def test_what_is_frozen_in_the_student_is_shared_with_its_copy(tmp_path):
    made = run(tmp_path, "ema", student=frozen())
    assert shared(made) == ["model.embed_tokens.weight"]


def test_a_copy_that_waits_elsewhere_shares_nothing(tmp_path):
    made = run(tmp_path, "copy", student=frozen(), teacher_offload="cpu")
    assert not shared(made)


@pytest.mark.parametrize("source", ["copy", "ema"])
def test_what_is_shared_with_a_copy_must_not_train_later(tmp_path, source):
    made = run(tmp_path, source, student=frozen())
    taught(made)
    made.student.get_input_embeddings().requires_grad_(True)
    with pytest.raises(ValueError, match="frozen when its teacher was made of it"):
        taught(made)


@pytest.mark.parametrize("called", ["default", "model", "layers", "weight", "lora_A"])
def test_a_copy_of_an_adapter_is_its_copy_whatever_it_is_called(tmp_path, called):
    student = adapted(called=called)
    before = last(student)
    made = run(tmp_path, "copy", student=student)
    assert made.shares_base and torch.equal(taught(made), before)
    pairs = adapter_pairs(made.student)
    assert len(pairs) == 2 * 3 * len(LORA["target_modules"])
    assert all(torch.equal(own, teachers) for own, teachers in pairs.values())


def test_weights_of_an_adapter_that_have_no_partner_are_refused():
    with pytest.raises(ValueError, match="none of the student's weights is one of its adapter"):
        adapter_pairs(adapted(), "another")


@pytest.mark.parametrize("lora", [False, True], ids=["whole", "adapter"])
def test_the_average_is_that_of_every_trained_weight_after_each_step(tmp_path, lora):
    student = adapted() if lora else tiny.model(seed=1)
    made = run(tmp_path, "ema", student=student, max_steps=3, ema_decay=0.8)
    trained = {n: p.detach().clone() for n, p in made.student.named_parameters() if p.requires_grad}

    class Naive(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            for name, parameter in made.student.named_parameters():
                if name in trained:
                    trained[name] = 0.8 * trained[name] + 0.2 * parameter.detach()

    made.add_callback(Naive())
    made.train()
    found = {one.name: one.teacher for one in made._average._followed()}
    assert found.keys() == trained.keys()
    for name, expected in trained.items():
        torch.testing.assert_close(found[name], expected)
    # It teaches: the teacher that reads is that mean.
    assert made.shares_base == lora


def test_of_an_adapter_a_and_b_are_averaged_and_not_their_product(tmp_path):
    made = run(tmp_path, "ema", student=adapted(), ema_decay=0.5)
    layer = made.student.base_model.model.model.layers[0].self_attn.q_proj
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    before = a.detach().clone(), b.detach().clone()
    a.data, b.data = a.data + 1, b.data - 1
    made._average.update()
    mean_a, mean_b = layer.lora_A["oprd_teacher"].weight, layer.lora_B["oprd_teacher"].weight
    torch.testing.assert_close(mean_a, before[0] + 0.5)
    torch.testing.assert_close(mean_b, before[1] - 0.5)
    of_products = (before[1] @ before[0] + b @ a) / 2
    assert (mean_b @ mean_a - of_products).abs().max() > 0.1


def test_half_precision_weights_have_their_mean_in_float32(tmp_path):
    made = run(tmp_path, "ema", student=tiny.model(seed=1).to(torch.bfloat16), ema_decay=0.999)
    one = next(made._average._followed())
    before = one.teacher.detach().float()
    for followed in made._average._followed():
        followed.student.data += 0.5
    for _ in range(10):
        made._average.update()
    # Steps of 0.0005 would each be lost in bfloat16.
    moved = made._average._exact[one.name] - before
    assert moved.mean().item() == pytest.approx(0.5 * (1 - 0.999**10), rel=0.05)
    assert torch.equal(one.teacher, made._average._exact[one.name].to(torch.bfloat16))


def test_a_moving_teacher_reads_again_in_each_update_on_the_same_rollouts(tmp_path):
    readings = {}
    for source in ("copy", "ema"):
        made = run(tmp_path / source, source, updates_per_rollout=2, max_steps=2)
        once, count = made._teacher._read, []
        made._teacher._read = lambda *a, once=once, count=count, **o: (
            count.append(1) or once(*a, **o)
        )
        made.train()
        readings[source] = len(count)
    assert readings == {"copy": 1, "ema": 2}


@pytest.mark.parametrize(
    ("source", "lora"),
    [("base", True), ("copy", True), ("copy", False), ("ema", True), ("ema", False)],
)
def test_a_resumed_run_ends_with_the_weights_of_one_never_stopped(tmp_path, source, lora):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "ema_decay": 0.7}

    def finish(folder, resume=None):
        torch.manual_seed(0)
        made = run(folder, source, lora=lora and {"lora_dropout": 0.3}, rollout=None, **options)
        made.train(resume_from_checkpoint=resume)
        return weights(made.student), taught(made)

    whole = finish(tmp_path / "whole")
    resumed = finish(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert largest_difference(whole[0], resumed[0]) == 0
    assert torch.equal(whole[1], resumed[1])
    assert (tmp_path / "whole" / "checkpoint-2" / FILE).exists() == (source == "ema")


@pytest.mark.parametrize("damage", ["missing", "cut", "other"])
def test_a_checkpoint_without_its_average_is_refused_by_name(tmp_path, damage):
    run(tmp_path, "ema", max_steps=2, save_strategy="steps", save_steps=2).train()
    file = tmp_path / "checkpoint-2" / FILE
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:100])
    else:
        save_file(dict(list(load_file(file).items())[1:]), file)
    made = run(tmp_path, "ema", max_steps=4)
    with pytest.raises(ValueError, match=FILE):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


@pytest.mark.parametrize(
    ("name", "source", "options"),
    [
        ("teacher_source", "copy", {}),
        ("ema_decay", "ema", {"ema_decay": 0.5}),
        ("teacher_prompts", "ema", {"columns": {"teacher_prompt": PROMPTS}}),
        ("teacher_prompts", "ema", {"columns": None}),
        ("end_tokens", "ema", {"end_tokens": "student"}),
    ],
)
def test_a_run_does_not_go_on_with_another_teacher(tmp_path, name, source, options):
    run(tmp_path, "ema", max_steps=2, save_strategy="steps", save_steps=2).train()
    made = run(tmp_path, source, max_steps=4, **options)
    with pytest.raises(ValueError, match=f"began with {name}="):
        made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_the_saved_student_has_nothing_of_its_teacher(tmp_path):
    made = run(tmp_path, "ema", lora=True)
    made.train()
    made.save_model(str(tmp_path / "saved"))
    assert not [
        name
        for name in load_file(tmp_path / "saved/adapter_model.safetensors")
        if "teacher" in name
    ]
    assert not list((tmp_path / "saved").glob("*teacher*"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"source": "base"}, "this student trains its base: train an adapter"),
        (
            {"source": "base", "lora": {"init_lora_weights": "olora"}},
            "init_lora_weights='olora' moves a part of the base into the adapter",
        ),
        (
            {"source": "copy", "teacher": tiny.model(seed=2)},
            "leave the teacher's path or model out",
        ),
        (
            {"source": "copy", "teacher_model_revision": "x"},
            "teacher_model_revision is for a teacher",
        ),
        (
            {"source": "self"},
            "teacher_source must be one of path, base, copy, ema, server, got 'self'",
        ),
        ({"source": "ema", "ema_decay": 1.0}, "ema_decay must be"),
        ({"source": "ema", "ema_decay": -0.1}, "ema_decay must be"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_what_cannot_be_a_teacher_is_refused_at_construction(tmp_path, options, problem):
    with pytest.raises(ValueError, match=problem):
        run(tmp_path, **options)


@pytest.mark.parametrize("source", ["base", "copy", "ema"])
def test_a_teacher_of_itself_that_reads_the_same_is_warned_of(tmp_path, caplog, source):
    run(tmp_path, source, lora=True)
    assert SAME not in caplog.text
    run(tmp_path, source, lora=True, columns=None)
    assert SAME in caplog.text


def test_a_student_that_is_given_twice_is_still_refused(tmp_path):
    student = tiny.model(seed=1)
    with pytest.raises(ValueError, match="shares weights with the student"):
        trainer(tmp_path, student, student)
    trainer(tmp_path, student, copy.deepcopy(student))


def test_a_bridge_to_the_students_base_is_fitted_to_its_base(tmp_path):
    trainer(
        tmp_path, adapted(), teacher_source="base", bridge="fit", bridge_rank=3, prompts=PROMPTS
    )
    report = json.loads(next(tmp_path.glob("**/report.json")).read_text())
    assert all(layer["states_cosine"] < 0.99 for layer in report["layers"])
