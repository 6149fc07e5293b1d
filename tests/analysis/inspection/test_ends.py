"""Cosines at either end are those of loops over tokens."""

import pytest
import torch

from oprd.analysis.inspection.ends import Ends
from oprd.calibration.reading import PairedRows
from oprd.calibration.rollouts import Rollout
from oprd.calibration.selection import Selection, select_rows
from oprd.core.layers import LayerPair

PAIRS = (LayerPair(1, 1), LayerPair(2, 3))


def selections(*lengths):
    return select_rows(
        [Rollout(n, "", [1], [2] * k, "stop") for n, k in enumerate(lengths)], "all", 1
    )


def paired(count, seed):
    generator = torch.Generator().manual_seed(seed)

    def rows():
        return torch.randn(count, 4, generator=generator)

    return PairedRows({1: rows(), 2: rows()}, {1: rows(), 3: rows()}, None)


def test_curves_are_means_over_the_first_and_last_k_tokens():
    batches = [selections(3, 7), selections(5)]
    found = [paired(10, 0), paired(5, 1)]
    ends = Ends(PAIRS)
    tokens = []
    for batch, rows in zip(batches, found, strict=True):
        ends.add(batch, rows)
        cosines = torch.stack(
            [torch.cosine_similarity(rows.student[s], rows.teacher[t]) for s, t in PAIRS]
        )
        places = [(n, s.rows - 1 - n) for s in batch for n in range(s.rows)]
        tokens += [
            (*place, float(c[-1]), float(c.mean()))
            for place, c in zip(places, cosines.T, strict=True)
        ]
    curve = ends.curve()
    assert curve["k"] == list(range(1, 8))
    for side, name in enumerate(("first_k", "last_k")):
        for place, of in enumerate(("last", "mean")):
            for k, value in zip(curve["k"], curve[name][of], strict=True):
                kept = [token[2 + place] for token in tokens if token[side] < k]
                assert value == pytest.approx(sum(kept) / len(kept), abs=1e-6)


def test_quarters_are_each_responses_own():
    # One long response among short ones, all alike in their first halves alone.
    lengths = (20, 20, 200)
    batch = selections(*lengths)
    alike = torch.cat([torch.arange(length) < length / 2 for length in lengths])
    states = torch.tensor([1.0, 0.0]).expand(len(alike), 2)
    turned = torch.where(alike[:, None], states, states.flip(1))
    ends = Ends(PAIRS[:1])
    ends.add(batch, PairedRows({1: states}, {1: turned}, None))
    curve = ends.curve()
    assert curve["quarters"]["last"] == pytest.approx([1, 0])
    assert curve["quarters"]["mean"] == pytest.approx([1, 0])
    assert curve["last_k"]["last"][curve["quarter"]] > 0.1


def test_positions_that_are_not_read_keep_their_place():
    batch = selections(9)
    (whole,) = batch
    read = whole.positions.clone()
    read[:4] = False
    ends = Ends(PAIRS[:1])
    ends.add([Selection(whole.rollout, read)], paired(5, 0))
    curve = ends.curve()
    assert curve["first_k"]["last"][curve["k"].index(4)] == 0
    assert curve["first_k"]["last"][-1] == pytest.approx(curve["last_k"]["last"][-1])
