"""What a bridge would carry is what `fit_bridge` reports of the same rollouts."""

import pytest

from oprd.analysis.inspection.carry import Carry, spread
from oprd.analysis.inspection.rows import Plan, read_once
from oprd.calibration.bridge.fit import fit_bridge
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.selection import batches
from oprd.core.layers import LayerPair, pair_layers, pairs_text
from tests.calibration.pairs import rollouts, student, teacher


def test_the_report_is_that_of_a_fit():
    models, made = (student(), teacher()), rollouts(20)
    pairs = pair_layers("all", 3, 4)
    plan = Plan.of(made, "last_k", 4, seed=0)
    carry = Carry(*models, pairs, plan.supervised)
    read_once(*models, batches(plan.read, 3, 0, 1), [carry], lambda _: None)
    found = carry.report()
    settings = FitSettings(
        rank=8, positions="last_k", position_k=4, layer_pairing=pairs_text(pairs), batch_size=7
    )
    fitted = fit_bridge(*models, made, settings, progress=False).report
    assert found["rows"] == fitted["rows"] and found["rollouts"] == fitted["rollouts"]
    assert found["advice"]["rank"] == fitted["advice"]["rank"]
    assert found["advice"]["reason"] == fitted["advice"]["reason"]
    for ours, theirs in zip(found["curve"], fitted["curve"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("depth", "expected"), [(3, [1, 2, 3]), (30, [1, 8, 15, 23, 30])])
def test_few_layers_stand_for_all_the_first_and_the_last_among_them(depth, expected):
    pairs = [LayerPair(layer, layer) for layer in range(1, depth + 1)]
    assert [pair.student for pair in spread(pairs, 5)] == expected
