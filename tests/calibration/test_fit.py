"""Fitting on rollouts equals a fit on states that were read one rollout at a time."""

import json
from functools import partial

import pytest
import torch
from peft import LoraConfig, get_peft_model

from oprd.calibration.bridge import stream
from oprd.calibration.bridge.fit import fit_bridge
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.identity import prompts_identity
from oprd.calibration.reading import RowReader, naming_prompts
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import hold_out, select_rows
from oprd.core.bridge import Bridge, BridgeFitter
from oprd.core.bridge.score import score_rows
from oprd.core.bridge.statistics import NonFiniteRowError
from oprd.models.shared_base import base_active
from tests.calibration.pairs import rollouts, student, teacher

PAIRS = [(1, 1), (2, 3), (3, 4)]
SETTINGS = {"rank": 3, "positions": "all", "batch_size": 4}


def fitted(made=None, folder=None, **options):
    settings = FitSettings(**{**SETTINGS, **options})
    made = rollouts(24) if made is None else made
    return fit_bridge(student(), teacher(), made, settings, folder=folder, progress=False)


def states(model, rollout, layers):
    ids = torch.tensor([rollout.prompt_ids + rollout.completion_ids])
    with torch.no_grad():
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
    first = len(rollout.prompt_ids) - 1
    return {
        layer: hidden[layer][0, first : first + len(rollout.completion_ids)] for layer in layers
    }


def naive_fitter(selections):
    fitter, models = BridgeFitter(PAIRS, 32, 48), (student(), teacher())
    for selection in selections:
        rows = [
            states(model, selection.rollout, layers)
            for model, layers in zip(models, ((1, 2, 3), (1, 3, 4)), strict=True)
        ]
        kept = [{layer: h[selection.positions] for layer, h in side.items()} for side in rows]
        fitter.update(*kept)
    return fitter


@pytest.mark.parametrize("positions", [("all", 1), ("last_k", 3), ("first_k", 2), ("last", 1)])
def test_the_rows_are_the_states_that_predict_the_supervised_tokens(positions):
    fit, _ = hold_out(select_rows(rollouts(40), *positions))
    expected = naive_fitter(fit).solve(3, ridge=0.1)
    found = fitted(rollouts(40), positions=positions[0], position_k=positions[1], ridge=0.1).bridge
    assert found.rows == expected.rows
    for name in ("student_projection", "teacher_projection", "student_mean", "teacher_mean"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=1e-4, rtol=0)


def test_a_student_as_its_own_teacher_is_carried_whole_and_a_random_map_carries_nothing():
    model = student()
    report = fit_bridge(model, model, rollouts(60), FitSettings(**SETTINGS), progress=False).report
    for layer in report["layers"]:
        assert layer["cosine"]["after"] > 0.99
        assert layer["r_squared"]["after"] > 0.99
        assert abs(layer["cosine"]["before"]) < 0.5
        assert layer["r_squared"]["before"] < 0.1
        assert layer["states_cosine"] == pytest.approx(1)
        assert layer["best_rank"] >= 30
    assert report["curve"][-1]["cosine"] > 0.99
    assert report["advice"]["rank"] >= 30


@pytest.mark.parametrize(
    "options", [{}, {"basis": "fisher"}, {"layer_pairing": "similarity"}, {"basis": "pca+heads"}]
)
def test_a_teacher_on_the_students_base_is_read_without_the_students_adapter(options):
    adapted = get_peft_model(student(), LoraConfig(r=4, target_modules=["q_proj", "down_proj"]))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
            parameter.data = noise / 3
    settings, made = FitSettings(**{**SETTINGS, **options}), rollouts(24)
    expected, found = (
        fit_bridge(adapted, teacher, made, settings, progress=False, **how)
        for teacher, how in (
            (student(), {}),
            (adapted, {"teacher_active": partial(base_active, adapted)}),
        )
    )
    assert found.bridge.pairs == expected.bridge.pairs
    assert max(layer["states_cosine"] for layer in found.report["layers"]) < 0.99
    for name in ("student_projection", "student_mean", "teacher_mean"):
        torch.testing.assert_close(getattr(found.bridge, name), getattr(expected.bridge, name))
    assert found.report["layers"] == expected.report["layers"]


def test_the_report_judges_by_the_rollouts_that_were_held_out():
    made = rollouts(30)
    found = fitted(made)
    fit, held_out = hold_out(select_rows(made, "all", 1))
    report = found.report
    assert report["rows"] == {
        "fit": sum(selection.rows for selection in fit),
        "held_out": sum(selection.rows for selection in held_out),
    }
    assert report["rollouts"] == {"rollouts": 30, "fit": 24, "held_out": 6}
    reader = RowReader(student(), teacher(), found.bridge.pairs)
    score = score_rows(found.bridge, *reader(held_out)[:2])
    for layer in report["layers"]:
        expected = score[layer["student"]]
        assert layer["cosine"]["after"] == pytest.approx(expected.cosine, abs=1e-5)
        assert layer["r_squared"]["after"] == pytest.approx(expected.r_squared, abs=1e-5)
    at_rank = next(point for point in report["curve"] if point["rank"] == 3)
    mean = sum(score.cosine for score in score.values()) / 3
    assert at_rank["cosine"] == pytest.approx(mean, abs=1e-5)
    assert [point["rank"] for point in report["curve"]] == [1, 2, 3, 4, 8, 16, 32]
    assert json.loads(json.dumps(report)) == report


def test_the_ridge_is_chosen_on_held_out_rows_unless_it_is_given():
    assert {layer["ridge"] for layer in fitted(ridge=0.25).report["layers"]} == {0.25}
    # Random models have nothing in common, so that a plain least-squares fit is all noise.
    chosen = fitted()
    assert all(layer["ridge"] > 1e-3 for layer in chosen.report["layers"])
    plain = fitted(ridge=1e-6)
    for ours, theirs in zip(chosen.report["layers"], plain.report["layers"], strict=True):
        assert ours["r_squared"]["after"] >= theirs["r_squared"]["after"]


@pytest.mark.parametrize("basis", ["rrr", "fisher"])
def test_other_bases_are_fitted_too(basis):
    bridge = fitted(basis=basis).bridge
    assert (bridge.basis, bridge.rank) == (basis, 3)
    rows = torch.stack(bridge.teacher_projections)
    scales = (rows @ rows.mT).diagonal(dim1=1, dim2=2)
    if basis == "rrr":
        torch.testing.assert_close(scales, torch.ones_like(scales))
    else:
        # Directions are as long as the root of their eigenvalue, the longest first.
        assert (scales.diff(dim=1) <= 0).all() and (scales > 0).all()


def test_provenance_says_what_the_rows_were():
    settings = FitSettings(**{**SETTINGS, "positions": "first_k", "position_k": 4})
    given = {"student": {"weights": "s"}, "teacher": {"weights": "t"}, "rollouts": {"top_p": 0.9}}
    bridge = fit_bridge(
        student(), teacher(), rollouts(), settings, provenance=given, progress=False
    ).bridge
    prompts = prompts_identity([rollout.prompt_ids for rollout in rollouts()])
    positions = {"positions": "first_k", "position_k": 4}
    assert bridge.provenance == {**given, "positions": positions, "prompts": prompts}
    assert fitted(positions="all").bridge.provenance["positions"] == {
        "positions": "all",
        "position_k": None,
    }


def test_an_interrupted_fit_goes_on_and_ends_with_the_same_bridge(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "SAVE_EVERY_SECONDS", 0.0)
    whole = fitted().bridge
    read = RowReader.__call__
    count = 0

    def cut_off(self, batch):
        nonlocal count
        count += 1
        if count == 4:
            raise KeyboardInterrupt
        return read(self, batch)

    monkeypatch.setattr(RowReader, "__call__", cut_off)
    with pytest.raises(KeyboardInterrupt):
        fitted(folder=tmp_path)
    assert (tmp_path / "statistics-0.safetensors").exists()
    # 19 rollouts to fit on and 5 to judge by in batches of 4: 7 batches, 3 of them done, and the
    # 2 that are held out are read again for the scores.
    resumed = fitted(folder=tmp_path)
    assert count == 4 + 4 + 2
    for name, buffer in whole.named_buffers():
        assert torch.equal(buffer, dict(resumed.bridge.named_buffers())[name])
    assert list(tmp_path.iterdir()) == []


def test_statistics_of_other_settings_are_not_gone_on_with(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stream, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(stream.StatisticsFile, "remove", lambda self: None)
    fitted(folder=tmp_path)
    other = fitted(folder=tmp_path, positions="last_k", position_k=2).bridge
    assert "is of other settings: all rows are read anew" in caplog.text
    assert other.rows == fitted(positions="last_k", position_k=2).bridge.rows
    caplog.clear()
    # Another rank needs no other rows.
    assert fitted(folder=tmp_path, positions="last_k", position_k=2, rank=5).bridge.rank == 5
    assert "anew" not in caplog.text
    file = tmp_path / "statistics-0.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    fitted(folder=tmp_path, positions="last_k", position_k=2)
    assert "is damaged" in caplog.text


def test_a_row_that_is_not_finite_is_named_with_its_prompt():
    broken = teacher()
    made = rollouts(12)
    token = made[6].completion_ids[2]
    made = [r for n, r in enumerate(made) if n == 6 or token not in r.prompt_ids + r.completion_ids]
    with torch.no_grad():
        broken.get_input_embeddings().weight[token] = float("nan")
    with pytest.raises(
        FloatingPointError,
        match=r"teacher layer 1 is not finite where it predicts response token \d of prompt 6 "
        r"\('prompt text 6'\): mend the teacher's weights",
    ):
        fit_bridge(student(), broken, made, FitSettings(**SETTINGS), progress=False)


@pytest.mark.parametrize(("row", "place"), [(0, (0, 1)), (2, (0, 3)), (3, (1, 0)), (4, (1, 1))])
def test_a_row_is_traced_to_its_prompt_and_token(row, place):
    made = [Rollout(5 + n, "", [1], [2] * length, "stop") for n, length in enumerate((4, 2))]
    batch = select_rows(made, "last_k", 3)
    expected = f"student layer 2 .* response token {place[1]} of prompt {5 + place[0]} "
    with pytest.raises(FloatingPointError, match=expected), naming_prompts(batch):
        raise NonFiniteRowError("student", 2, row)


def test_constant_states_are_refused_by_layer():
    constant = teacher()
    with torch.no_grad():
        constant.base_model.norm.weight.zero_()
    with pytest.raises(ValueError, match=r"teacher layer 4 is the same vector in all .* rows"):
        fit_bridge(student(), constant, rollouts(), FitSettings(**SETTINGS), progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"rank": 33}, "rank 33 is above a width: the student has 32, the teacher 48"),
        ({"rank": 10**9}, "rank 1000000000 is above a width"),
        ({"layers": (4,)}, r"layer 4 is outside 1\.\.3"),
        ({"layers": (2, 2)}, "layers repeat"),
        ({"layers": (-1,)}, "layer -1 is outside"),
        ({"basis": "svd"}, "basis must be one of pca, rrr, fisher, heads, .* got 'svd'"),
        ({"positions": "middle"}, "positions must be one of all, last, first_k, last_k"),
        ({"ridge": -1.0}, "ridge must be 0 or more"),
        ({"ridge": float("nan")}, "ridge must be 0 or more"),
        ({"max_rows": 0}, "max_rows must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"rank": 8, "max_rows": 8}, "fit on determine at most .* directions, and rank is 8"),
    ],
)
def test_what_cannot_be_fitted_is_refused_before_anything_is_read(monkeypatch, options, message):
    def read(self, batch):
        raise AssertionError("rows were read")

    monkeypatch.setattr(RowReader, "__call__", read)
    with pytest.raises(ValueError, match=message):
        fitted(**options)


def test_the_models_are_left_as_they_were():
    models = student().train(), teacher().train()
    before = [{n: p.clone() for n, p in model.named_parameters()} for model in models]
    fit_bridge(*models, rollouts(), FitSettings(**SETTINGS, basis="fisher"), progress=False)
    for model, weights in zip(models, before, strict=True):
        assert model.training
        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, weights[name])
            assert parameter.grad is None and parameter.requires_grad


def test_a_bridge_of_bfloat16_models_can_be_fitted_saved_and_loaded(tmp_path):
    models = student().bfloat16(), teacher().bfloat16()
    bridge = fit_bridge(*models, rollouts(), FitSettings(**SETTINGS), progress=False).bridge
    bridge.save(tmp_path / "b.safetensors")
    loaded = Bridge.load(tmp_path / "b.safetensors")
    assert loaded.student_projection.dtype == torch.float64
    assert torch.equal(loaded.student_projection, bridge.student_projection)


def test_a_response_of_one_token_gives_the_state_that_ends_its_prompt():
    made = [Rollout(n, "", [n + 1, 2 * n + 3], [7], "stop") for n in range(20)]
    assert fitted(made).bridge.rows == 16
