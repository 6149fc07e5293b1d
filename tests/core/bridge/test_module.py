"""The bridge as a module: what it projects, what it refuses, how it moves."""

import ast
import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import oprd.core.bridge as public
from oprd.core.bridge import Bridge
from oprd.core.bridge.bridge import PairFit

P, R, S, H = 2, 3, 5, 7


def make_bridge(dtype=torch.float64, **options):
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    statistics = [
        PairFit(noise(H).abs(), noise(H).abs(), 0.9 - i / 7, 0.1 + i / 3, 1e-6 / 7**i)
        for i in (0, 1)
    ]
    arguments = {
        "student_projection": noise(P, R, S).to(dtype),
        "student_mean": noise(P, S).to(dtype),
        "teacher_projection": noise(P, R, H).to(dtype),
        "teacher_mean": noise(P, H).to(dtype),
        "statistics": statistics,
        "rows": 1000,
        **options,
    }
    return Bridge([(2, 3), (1, 3)], **arguments)


def test_the_package_names_two_things():
    assert public.__all__ == ["Bridge", "BridgeFitter"]


def test_the_bridge_imports_torch_and_safetensors_only():
    allowed = {*sys.stdlib_module_names, "torch", "safetensors"}
    for path in Path(public.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            for name in names:
                assert name.startswith("oprd.core.") or name.split(".")[0] in allowed, (path, name)


def test_projects_both_sides_by_the_students_layer_number():
    bridge = make_bridge()
    h_s, h_t = torch.randn(2, 4, S).double(), torch.randn(2, 4, H).double()
    for place, layer in enumerate((2, 1)):
        expected = (h_s - bridge.student_mean[place]) @ bridge.student_projections[place].T
        torch.testing.assert_close(bridge.project_student(layer, h_s), expected)
        expected = (h_t - bridge.teacher_mean[place]) @ bridge.teacher_projections[place].T
        torch.testing.assert_close(bridge.project_teacher(layer, h_t), expected)


def test_gradient_reaches_the_student_only():
    bridge = make_bridge()
    h_s = torch.randn(4, S, requires_grad=True)
    h_t = torch.randn(4, H, requires_grad=True)
    s, t = bridge.project_student(1, h_s), bridge.project_teacher(1, h_t)
    assert not t.requires_grad
    s.sum().backward()
    expected = bridge.student_projections[1].float().sum(0).expand(4, S)
    torch.testing.assert_close(h_s.grad, expected)
    assert list(bridge.parameters()) == []
    assert not any(buffer.requires_grad for buffer in bridge.buffers())


def test_the_graph_keeps_no_copy_of_the_states():
    bridge = make_bridge(torch.float32)
    kept = []

    def pack(tensor):
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        bridge.project_student(1, torch.randn(1000, S, requires_grad=True))
    assert sum(kept) <= R * S


@pytest.mark.parametrize(
    ("states", "result"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
@pytest.mark.parametrize("held", [torch.float64, torch.float32, torch.bfloat16])
def test_projections_are_float32_or_better_whatever_the_bridge_is_cast_to(states, result, held):
    bridge = make_bridge().to(held)
    h = torch.randn(4, S).to(states)
    projected = bridge.project_student(1, h)
    assert projected.dtype == result
    mean, projection = bridge.student_mean[1].double(), bridge.student_projections[1].double()
    expected = (h.double() - mean) @ projection.T
    torch.testing.assert_close(projected.double(), expected, atol=1e-5, rtol=1e-5)


def test_autocast_does_not_round_the_projections():
    bridge = make_bridge(torch.float32)
    h = torch.randn(4, S)
    expected = bridge.project_student(1, h)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = bridge.project_student(1, h)
    assert projected.dtype == torch.float32
    assert torch.equal(projected, expected)


def test_moves_with_the_model_that_holds_it_and_stays_out_of_its_checkpoint():
    model = nn.Linear(2, 2)
    model.bridge = make_bridge()
    assert set(model.state_dict()) == {"weight", "bias"}
    model.to(torch.bfloat16)
    assert model.bridge.student_mean.dtype == torch.bfloat16
    assert model.bridge.statistics[1].eigenvalues.dtype == torch.float64
    assert copy.deepcopy(model).bridge.project_student(1, torch.zeros(1, S)).shape == (1, R)
    assert model.to("meta").bridge.student_mean.is_meta


def test_says_what_it_is():
    assert "rank=3, pairs=2, student_dim=5, teacher_dim=7" in repr(make_bridge())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.project_student(3, torch.zeros(1, S)), r"student layer 3 is not .* \[1, 2\]"),
        (lambda b: b.project_teacher(3, torch.zeros(1, H)), r"student layer 3 is not .* \[1, 2\]"),
        (lambda b: b.project_student(1, torch.zeros(1, H)), r"student states of width 5, got .*7"),
        (lambda b: b.project_teacher(1, torch.zeros(1, S)), r"teacher states of width 7, got .*5"),
    ],
)
def test_states_of_other_layers_or_widths_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(make_bridge())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student_projection": torch.zeros(P, R + 1, S)}, "needs projections"),
        ({"student_mean": torch.zeros(P, S + 1).double()}, "needs projections"),
        ({"teacher_mean": torch.zeros(P, H)}, "of one dtype"),
        ({"statistics": []}, "2 pairs need as many statistics: 0"),
        ({"provenance": {"student": {1, 2}}}, "provenance must be a mapping that JSON can hold"),
        ({"provenance": {"rate": float("nan")}}, "provenance must be a mapping"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_bridge(**options)
