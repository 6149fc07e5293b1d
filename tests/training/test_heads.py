"""Training through both LM heads: a sum in nats, beside other pairs, and which bridges are kept."""

import pytest
import torch

from oprd.core.bridge import Bridge
from oprd.core.bridge.pull import Pull
from tests.calibration.pairs import student, teacher
from tests.training import runs
from tests.training.runs import settings, trainer
from tests.training.test_bridges import POSITIONS, fit


def made_trainer(folder, **options):
    options = {"student": student(), "teacher": teacher(), "max_steps": 1, **POSITIONS, **options}
    return trainer(folder, **options)


def expected_losses(bridge, made):
    """Of each pair, the mean over responses and positions of the summed squared difference."""
    models, found = (student(), teacher()), {}
    for pair in bridge.pairs:
        sums = []
        for prompt in runs.PROMPTS[:4]:
            ids = made.tokenizer(prompt)["input_ids"]
            both = torch.tensor([ids + runs.scripted(ids)])
            rows = slice(-4, -1) if both.shape[1] - len(ids) >= 3 else slice(len(ids) - 1, -1)
            with torch.no_grad():
                h_s, h_t = (
                    model(both, output_hidden_states=True).hidden_states[layer][0, rows]
                    for model, layer in zip(models, pair, strict=True)
                )
            s = bridge.project_student(pair.student, h_s)
            t = bridge.project_teacher(pair.student, h_t)
            unit = 2 - 2 * torch.cosine_similarity(s, t)
            sums.append(torch.stack([(s - t).square().sum(dim=1).mean(), unit.mean()]))
        found[pair.student] = torch.stack(sums).mean(dim=0).tolist()
    return found


@pytest.mark.parametrize("scale", [None, "none", "unit", "layer"])
def test_the_distance_is_summed_over_directions_whatever_the_scale(tmp_path, scale):
    file = fit(tmp_path / "bridge", basis="heads", layers="last")
    options = {"bridge": file, "layers": "last", "scale": scale, "prompts": runs.PROMPTS[:4]}
    # The weight is the default's: 1, in nats.
    made = made_trainer(tmp_path, representation_weight=None, **options)
    made.train()
    summed, _ = expected_losses(Bridge.load(file), made)[3]
    assert made.state.log_history[0]["loss"] == pytest.approx(summed, rel=1e-4)


def test_a_fitted_bridge_of_heads_takes_no_scale(tmp_path):
    with pytest.raises(ValueError, match="bridge_basis='heads' compares logits: leave it"):
        settings(tmp_path, bridge="fit", bridge_basis="heads", layers="last", scale="unit")


def test_heads_above_a_basis_that_no_pair_has_go_on(tmp_path):
    options = {"bridge": "fit", "bridge_basis": "pca+heads", "bridge_rank": 2, "layers": "last"}
    for _ in range(2):
        made = made_trainer(tmp_path, bridge_prompts=10, **options)
    assert made._teacher.spaces["fit"].bridge.bases == ("heads",)


def test_pairs_below_keep_unit_length_by_default(tmp_path):
    file = fit(tmp_path / "bridge", basis="pca+heads", layers="all", heads_rank=5)
    made = made_trainer(tmp_path, bridge=file, prompts=runs.PROMPTS[:4])
    made.train()
    found = expected_losses(Bridge.load(file), made)
    expected = (found[1][1] + found[2][1] + found[3][0]) / 3
    assert made.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)


def test_a_fit_before_the_first_step_says_what_was_read(tmp_path):
    options = {
        "bridge": "fit",
        "bridge_basis": "heads",
        "heads_metric": "prior",
        "layers": "last",
        "bridge_prompts": 10,
    }
    made = made_trainer(tmp_path, **options)
    assert made.args.scale == "none"
    facts = made._recorder.facts["bridges"]["fit"]
    assert (facts["basis"], facts["heads_metric"]) == ("heads", "prior")
    made_trainer(tmp_path, **options)
    for other, message in (
        ({"heads_metric": "fisher"}, "fitted with heads_metric='prior', .* asks for heads_metric="),
        ({"heads_rank": 4}, r"fitted with heads_rank=\d+, and the run asks for heads_rank=4"),
        (
            {"bridge_basis": "pca"},
            "fitted with bridge_basis='heads', .* bridge_basis='pca'",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            made_trainer(tmp_path, **{**options, **other})


def test_one_teacher_layer_may_serve_pairs_of_several_ranks(tmp_path):
    pairing = "1:1,2:4,3:4"
    file = fit(
        tmp_path / "bridge", basis="pca+heads", layers="all", layer_pairing=pairing, heads_rank=6
    )
    assert Bridge.load(file).ranks == (4, 4, 6)
    made = made_trainer(tmp_path, bridge=file, layer_pairing=pairing, prompts=runs.PROMPTS[:4])
    made.train()
    found = expected_losses(Bridge.load(file), made)
    expected = (found[1][1] + found[2][1] + found[3][0]) / 3
    assert made.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bridge_basis": "svd"}, "bridge_basis must be one of"),
        ({"heads_metric": "euclidean"}, "heads_metric must be one of"),
        ({"heads_rank": 0}, "heads_rank must be"),
    ],
)
def test_unknown_names_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        settings(tmp_path, bridge="fit", **options)


def test_a_run_that_names_a_bridge_of_heads_alone_compares_the_last_layers(tmp_path):
    file = fit(tmp_path / "bridge", basis="heads", layers="last")
    assert [tuple(pair) for pair in made_trainer(tmp_path, bridge=file).pairs] == [(3, 4)]


def test_a_fit_that_pulls_the_student_away_is_warned_of(tmp_path, monkeypatch, caplog):
    found = Pull(rows=10, before=9.0, after=20.0)
    monkeypatch.setattr("oprd.calibration.bridge.scores.pull", lambda *_: found)
    made_trainer(tmp_path, bridge="fit", bridge_basis="heads", bridge_prompts=10)
    assert "bridge='fit': this bridge pulls the student away" in caplog.text
    assert "from 0.9 to 2 nats" in caplog.text
