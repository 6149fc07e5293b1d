import pytest
import torch

from lab.variants.live_heads import COSINE, FITTED, LIVE, LiveHeads
from tests.training import runs
from tests.training.test_bridges import fit
from tests.training.test_heads import made_trainer


def run(folder, bridge, *, refresh=None, **options):
    made = made_trainer(folder, bridge=bridge, layers="last", max_steps=3, **options)
    if refresh is not None:
        made.add_callback(LiveHeads(made, runs.PROMPTS[:4], 4, 1, refresh=refresh))
    made.train()
    return made


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    return fit(
        tmp_path_factory.mktemp("bridge"), basis="heads", layers="last", heads_metric="prior"
    )


def values(made, name):
    return [line[name] for line in made.state.log_history if name in line]


def test_looking_changes_nothing_of_a_run(tmp_path, bridge):
    looked = run(tmp_path / "looked", bridge, refresh=False)
    plain = run(tmp_path / "plain", bridge)
    assert values(looked, "loss") == values(plain, "loss")


def test_a_head_that_has_not_moved_is_the_one_that_was_fitted(tmp_path, bridge):
    made = run(tmp_path, bridge, refresh=False, learning_rate=1e-12)
    assert values(made, FITTED) == pytest.approx(values(made, LIVE), rel=0.5)
    assert min(values(made, COSINE)) > 0.9


def test_a_bridge_that_reads_again_is_that_of_the_head_as_it_is(tmp_path, bridge):
    kept, refreshed = (
        run(tmp_path / str(refresh), bridge, refresh=refresh, learning_rate=1e-2)
        for refresh in (False, True)
    )
    (first,), (second,) = (m._teacher.spaces.values() for m in (kept, refreshed))
    assert not torch.allclose(first.bridge.student_projection, second.bridge.student_projection)
    # The first step is made before anything is read again.
    assert values(kept, "loss")[0] == values(refreshed, "loss")[0]
    assert values(kept, "loss")[2] != values(refreshed, "loss")[2]


def test_another_basis_is_refused(tmp_path):
    made = made_trainer(tmp_path / "run", bridge=fit(tmp_path / "bridge"))
    with pytest.raises(ValueError, match="basis 'pca', not 'heads'"):
        LiveHeads(made, runs.PROMPTS[:1], 4, 1, refresh=False)
