"""The memory that training holds, counted on shapes."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from oprd.core.output.divergence import ReverseKL
from oprd.models import memory
from oprd.models.counting import bytes_of, loaded_in
from oprd.models.distributions import Distributions
from oprd.models.memory import GIB, Estimate, Sizes, estimate, told
from tests import tiny

SIZES = Sizes(batch=2, rollouts=4, prompt=3, response=5, layers=(1, 2))


def held(model):
    return sum(p.numel() * p.element_size() for p in model.parameters())


def buffered(model):
    return sum(b.numel() * b.element_size() for b in model.buffers())


def test_nothing_is_computed_and_no_weight_changes():
    student, before = tiny.model().train(), None
    before = {name: value.clone() for name, value in student.state_dict().items()}
    estimate(student, [tiny.model(seed=1)], SIZES)
    assert all(value.equal(before[name]) for name, value in student.state_dict().items())
    assert all(p.grad is None for p in student.parameters())


def test_weights_that_models_share_count_once_and_only_what_trains_has_gradients():
    student = tiny.model().train()
    alone, shared = estimate(student, [], SIZES), estimate(student, [student], SIZES)
    assert alone.weights == shared.weights == held(student) + buffered(student)
    assert alone.gradients == held(student) and alone.optimizer == 2 * held(student)
    frozen = tiny.model().train().requires_grad_(False)
    frozen.lm_head.weight.requires_grad_(True)
    assert estimate(frozen, [], SIZES).gradients == held(frozen.lm_head)
    assert estimate(frozen, [], SIZES, whole=True).gradients == held(frozen)


def test_an_update_of_linear_layers_holds_what_is_counted_by_hand():
    stack = nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4))

    def run(model):
        model(torch.zeros(32, 8)).sum().backward()

    peak = memory._peak(stack, run)
    rows, weights = 32 * (8 + 16 + 4) * 4, held(stack)
    # Inputs of both layers and the output, with gradients as large at most, and those of weights.
    assert rows < peak < 2 * rows + weights


def test_activations_grow_with_tokens_and_shrink_with_checkpoints():
    student = tiny.model(num_hidden_layers=4).train()
    few, many = (estimate(student, [], Sizes(b, 1, 8, 24, (1, 2, 3, 4))) for b in (4, 8))
    assert many.activations == pytest.approx(2 * few.activations, rel=0.1)
    again = Sizes(8, 1, 8, 24, (1, 2, 3, 4), checkpointing={})
    assert estimate(student, [], again).activations < 0.6 * many.activations
    # It will be turned on in training, and not here.
    assert not student.is_gradient_checkpointing


def test_autocast_halves_what_it_casts():
    student = tiny.model(num_hidden_layers=4).train()
    sizes = Sizes(8, 1, 8, 56, (1, 2, 3, 4))
    whole, half = (
        estimate(student, [], sizes, autocast=partial(torch.autocast, "cpu", dtype, enabled=on))
        for dtype, on in ((torch.bfloat16, False), (torch.bfloat16, True))
    )
    assert whole == estimate(student, [], sizes)
    assert 0.5 < half.activations / whole.activations < 0.8
    # Weights stay as they are, and so do their gradients.
    assert replace(half, activations=0) == replace(whole, activations=0)


def test_a_larger_teacher_reads_under_autocast_too():
    student, larger = tiny.model().train(), tiny.model(hidden_size=32, intermediate_size=8192)
    half = partial(torch.autocast, "cpu", torch.bfloat16)
    needs = [estimate(student, [larger], replace(SIZES, batch=64), autocast=half)]
    needs += [estimate(student, [larger], replace(SIZES, batch=64))]
    assert needs[0].activations < 0.7 * needs[1].activations


def test_gradients_of_a_micro_batch_wait_while_the_next_one_is_read():
    student = tiny.model().train()
    few = replace(SIZES, batch=1, response=1)
    first, next_one = (estimate(student, [], replace(few, accumulates=a)) for a in (False, True))
    # Of so few tokens what is held at most are the gradients that come at the end.
    assert first.update == first.gradients + first.rows
    assert 0 < next_one.activations < next_one.gradients / 2
    assert replace(next_one, activations=0) == replace(first, activations=0)


def test_weights_of_another_dtype_are_counted_as_they_will_be_loaded():
    models = [tiny.model(seed=seed, tie_word_embeddings=True).train() for seed in (0, 1)]
    halves = [tiny.model(seed=seed, tie_word_embeddings=True).bfloat16().train() for seed in (0, 1)]
    sizes = replace(SIZES, checkpointing={}, distributions=Distributions((ReverseKL(),)))

    def need(student, teacher):
        return estimate(student, [teacher], sizes, whole=True)

    assert need(*loaded_in(torch.float32, *halves)) == need(*models)
    assert need(*halves).gradients == need(*models).gradients / 2


def test_a_copy_of_what_trains_is_there_while_the_rate_is_searched():
    frozen = tiny.model().train().requires_grad_(False)
    frozen.model.norm.weight.requires_grad_(True)
    for student in (tiny.model().train(), frozen):
        trains = bytes_of(p for p in student.parameters() if p.requires_grad)
        plain, searches = (estimate(student, [], SIZES, searches=s) for s in (False, True))
        assert searches.copied == trains and plain.copied == 0
        assert searches.update == plain.update and searches.coming >= plain.coming
    # Rollouts are written before the optimizer has states, or without the copy.
    assert Estimate(0, 8, 0, 1, 0, 50, copied=4).coming == 8 + 50
    assert Estimate(0, 1, 0, 1, 0, 50, copied=4).coming == 4 + 50
    assert Estimate(0, 8, 2, 7, 0, 5, copied=4).coming == 8 + 4 + 2 + 7


def test_distributions_are_held_while_the_student_learns():
    student, readers = tiny.model().train(), [tiny.model(seed=1)]
    compared = Distributions((ReverseKL(),))
    alone, with_them = (
        estimate(student, readers, replace(SIZES, distributions=told)) for told in (None, compared)
    )
    assert alone.distributions == 0
    rows = SIZES.batch * SIZES.response
    assert with_them.distributions == compared.held(student, readers, rows) > 0
    assert with_them.coming == alone.coming + with_them.distributions
    frozen = tiny.model().train().requires_grad_(False)
    whole = replace(SIZES, distributions=compared)
    differ = [estimate(frozen, readers, whole, whole=w).distributions for w in (False, True)]
    assert differ[1] - differ[0] == held(frozen.lm_head)


def test_the_teacher_s_states_are_as_wide_as_the_widest():
    readers = [tiny.model(hidden_size=16), tiny.model(hidden_size=32)]
    need = estimate(tiny.model().train(), readers, SIZES)
    assert need.rows == SIZES.batch * SIZES.response * 2 * 32 * 4


def test_a_teacher_that_is_larger_by_far_holds_more_than_the_student_s_update():
    student, larger = tiny.model().train(), tiny.model(hidden_size=32, intermediate_size=8192)
    alone, same = estimate(student, [], SIZES), estimate(student, [tiny.model()], SIZES)
    need = estimate(student, [larger], SIZES)
    assert same.activations == alone.activations
    # The wide layer's two inputs to its last product.
    assert need.activations > 2 * SIZES.batch * SIZES.tokens * 8192 * 4


def test_what_does_not_fit_is_said_with_a_way_out():
    need = Estimate(GIB, 2 * GIB, GIB, GIB, 0, GIB // 2)
    assert need.coming == 4 * GIB and need.peak == 5 * GIB
    text, fits = told(need, 5 * GIB)
    assert fits and text == (
        "Memory: models 1 GiB; steps need 4 GiB more (optimizer, from step 2, 2, gradients 1, "
        "activations 1, the teacher's states 0), and 5 GiB are free."
    )
    text, fits = told(need, 3 * GIB)
    assert not fits and "not enough: try a smaller per_device_train_batch_size" in text
    text, _ = told(Estimate(GIB, 0, 0, GIB, 0, 3 * GIB), 5 * GIB)
    assert "writing rollouts 3" in text
    text, _ = told(replace(need, copied=GIB), 5 * GIB)
    assert "steps need 5 GiB more (optimizer 2, a copy of what trains while learning_rate" in text


def test_free_memory_is_the_device_s(monkeypatch):
    monkeypatch.setattr(memory.psutil, "virtual_memory", lambda: SimpleNamespace(available=7))
    assert memory.free_bytes(torch.device("cpu")) == 7


def test_a_teacher_whose_weights_are_elsewhere_costs_its_states_alone():
    student, elsewhere = tiny.model().train(), tiny.model(hidden_size=64).to("meta")
    need, alone = estimate(student, [elsewhere], SIZES), estimate(student, [], SIZES)
    assert need.weights == alone.weights and need.activations == alone.activations
    assert need.rows == SIZES.batch * SIZES.response * 2 * 64 * 4
