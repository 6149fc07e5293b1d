"""A fit that reads both LM heads finds the distance of the logits on the rows that it reads."""

import json

import pytest
import torch
from peft import LoraConfig, get_peft_model

from oprd.calibration.bridge import heads as module
from oprd.calibration.bridge import scores
from oprd.calibration.bridge.fit import fit_bridge
from oprd.calibration.bridge.heads import both_heads
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.reading import RowReader
from oprd.calibration.selection import hold_out, select_rows
from oprd.core.bridge.heads import METRICS
from oprd.core.layers import LayerPair
from oprd.models.heads import lm_head
from tests.calibration.pairs import rollouts, student, teacher
from tests.reference import heads as naive

SETTINGS = {"basis": "heads", "layers": "last", "positions": "all", "batch_size": 4}


def fitted(models=None, made=None, **options):
    settings = FitSettings(**{**SETTINGS, **options})
    models = models or (student(), teacher())
    return fit_bridge(*models, made or rollouts(24), settings, progress=False)


def last_rows(selections):
    rows = RowReader(student(), teacher(), [LayerPair(3, 4)])(selections)
    return rows.student[3], rows.teacher[4]


@pytest.mark.parametrize("metric", METRICS)
def test_the_distance_is_that_of_the_logits_on_the_rows_of_the_fit(metric):
    found = fitted(heads_metric=metric)
    fit, held_out = (last_rows(part) for part in hold_out(select_rows(rollouts(24), "all", 1)))
    heads = [lm_head(model()).detach() for model in (student, teacher)]
    size = min(head.vocab_size for head in heads)
    matrix = naive.metric_matrix(metric, naive.distributions(heads[1], fit[1].double(), size))
    h_s, h_t = (rows.double() for rows in held_out)
    expected = naive.squared_distances(*heads, h_s, h_t, matrix)
    bridge, (layer,) = found.bridge, found.report["layers"]
    difference = bridge.project_student(3, h_s) - bridge.project_teacher(3, h_t)
    reached = difference.square().sum(dim=1)
    left = expected - reached
    # The mean of what no state can undo is that of the rows of the fit.
    whole = naive.squared_distances(*heads, *(rows.double() for rows in fit), matrix)
    on_fit = bridge.project_student(3, fit[0].double()) - bridge.project_teacher(3, fit[1].double())
    unreachable = float((whole - on_fit.square().sum(dim=1)).mean())
    assert (left > -1e-9).all()
    assert layer["heads"]["metric"] == bridge.heads_metric == metric
    assert layer["heads"]["distance"] == pytest.approx(float(reached.mean()), rel=1e-4)
    assert layer["heads"]["unreachable"] == pytest.approx(unreachable, rel=1e-4)
    assert json.loads(json.dumps(found.report)) == found.report


def test_a_student_as_its_own_teacher_can_reach_everything():
    (layer,) = fitted((student(), student())).report["layers"]
    assert layer["heads"]["distance"] == pytest.approx(0, abs=1e-9)
    assert layer["heads"]["unreachable"] == pytest.approx(0, abs=1e-9)
    assert layer["cosine"]["after"] == pytest.approx(1)


def test_the_pairs_below_are_fitted_as_without_heads_and_they_alone_have_a_curve():
    both = fitted(basis="pca+heads", layers="all", rank=3)
    alone = fitted(basis="pca", layers="all", rank=3)
    assert both.bridge.bases == ("pca", "pca", "heads")
    for place in (0, 1):
        for name in ("student_projections", "teacher_projections"):
            one, other = getattr(both.bridge, name)[place], getattr(alone.bridge, name)[place]
            torch.testing.assert_close(one, other)
    lower = [layer["r_squared"]["after"] for layer in both.report["layers"][:2]]
    at_rank = next(point for point in both.report["curve"] if point["rank"] == 3)
    assert at_rank["r_squared"] == pytest.approx(sum(lower) / 2)
    assert [layer["heads"] is not None for layer in both.report["layers"]] == [False, False, True]
    assert fitted().report["curve"] == [] and fitted().report["advice"] is None


def test_of_many_rows_an_even_share_weighs_the_tokens(monkeypatch):
    monkeypatch.setattr(module, "MOST_ROWS", 20)
    read = []
    update = module.HeadStatistics.update

    def spy(self, rows):
        update(self, rows)
        read.append(self)

    monkeypatch.setattr(module.HeadStatistics, "update", spy)
    bridge = fitted(heads_metric="prior").bridge
    assert 10 < read[-1].count <= 20 < bridge.rows


def test_an_interrupted_fit_may_not_go_on_with_another_metric(tmp_path, monkeypatch, caplog):
    from oprd.calibration.bridge import stream

    monkeypatch.setattr(stream, "SAVE_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(stream.StatisticsFile, "remove", lambda self: None)

    def fit(**options):
        settings = FitSettings(**{**SETTINGS, **options})
        return fit_bridge(
            student(), teacher(), rollouts(24), settings, folder=tmp_path, progress=False
        ).bridge

    whole = fit()
    assert torch.equal(fit(heads_rank=3).student_projection, whole.student_projection[:3])
    assert "anew" not in caplog.text
    fit(heads_metric="prior")
    assert "is of other settings: all rows are read anew" in caplog.text


def test_a_cap_is_named_because_logits_are_compared_before_it(caplog):
    capped = teacher()
    capped.config.final_logit_softcapping = 5.0
    assert both_heads(student(), capped).capped
    fitted((student(), capped))
    assert "an LM head caps its logits, and they are compared before the cap" in caplog.text


def with_adapter(model, *targets):
    return get_peft_model(model, LoraConfig(r=2, target_modules=list(targets)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "all"}, r"student layers \[1, 2\] lie below: set layers='last'"),
        ({"layers": (2,)}, "for the last layers of both models, 3 with 4, .* is 2 with 3"),
        (
            {"layers": (3,), "layer_pairing": "3:3"},
            "for the last layers of both models, 3 with 4, .* is 3 with 3",
        ),
        ({"basis": "heads+pca"}, "basis must be one of pca, rrr, fisher, heads, pca"),
        ({"heads_metric": "other"}, "heads_metric must be one of"),
        ({"basis": "pca", "heads_rank": 2}, "heads_rank=2 is for basis='heads' or 'pca.heads'"),
        ({"heads_rank": 0}, "heads_rank must be at least 1, got 0"),
    ],
)
def test_what_heads_cannot_serve_is_refused_before_anything_is_read(monkeypatch, options, message):
    monkeypatch.setattr(RowReader, "__call__", lambda *_: pytest.fail("rows were read"))
    with pytest.raises(ValueError, match=message):
        fitted(**options)


def test_a_head_with_an_adapter_is_refused(monkeypatch):
    monkeypatch.setattr(RowReader, "__call__", lambda *_: pytest.fail("rows were read"))
    with pytest.raises(ValueError, match="it carries an adapter"):
        fitted((with_adapter(student(), "q_proj", "lm_head"), teacher()))


@pytest.mark.parametrize("basis", ["pca", "heads"])
def test_a_report_says_what_the_pull_makes_of_what_the_student_says(basis, monkeypatch):
    whole = fitted(basis=basis, layers="last").report
    found = whole["pull"]
    assert found["rows"] == whole["rows"]["held_out"]
    assert found["before"] > 0 and found["after"] >= 0
    assert (found["problem"] is None) == (found["after"] <= found["before"])
    monkeypatch.setattr("oprd.calibration.bridge.scores.MOST_READ", 5)
    assert fitted(basis=basis, layers="last").report["pull"]["rows"] == 5


def test_nothing_is_said_where_the_last_states_do_not_meet():
    assert fitted(basis="pca", layers=(2,)).report["pull"] is None


@pytest.mark.parametrize("sizes", [(3, 2), (60, 40, 200), (300,)])
def test_the_rows_of_the_pull_are_drawn_evenly_from_all_that_were_held_out(sizes):
    drawn = scores._Drawn(most=100)
    parts = torch.arange(sum(sizes), dtype=torch.float).split(sizes)
    for part in parts:
        drawn.add(part[:, None], -part[:, None].expand(-1, 2))
    ours, theirs = drawn.rows
    kept = ours[:, 0].long().tolist()
    assert len(kept) == min(sum(sizes), 100)
    assert kept == sorted(set(kept))
    assert torch.equal(theirs, -ours.expand(-1, 2))
    part_of = torch.repeat_interleave(torch.tensor(sizes))
    shares = part_of[kept].bincount(minlength=len(sizes)) / len(kept)
    assert shares.tolist() == pytest.approx([size / sum(sizes) for size in sizes], abs=0.15)
