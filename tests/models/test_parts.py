"""A teacher's part of a micro-batch: its sequences, and where their rows are among all."""

from dataclasses import replace

import pytest
import torch

from oprd.models.batch import MicroBatch
from oprd.models.parts import Part

# Responses of three sequences, of which the second is empty, and what of them is supervised.
RESPONSE = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 1, 1]]).bool()
POSITIONS = torch.tensor([[0, 1, 0], [0, 0, 0], [1, 0, 1]]).bool()


def batch(shares, reads=None, **options) -> MicroBatch:
    ids = torch.arange(15).reshape(3, 5)
    made = MicroBatch.of_rollouts(
        ids,
        torch.cat([torch.ones(3, 2), RESPONSE], dim=1).long(),
        RESPONSE,
        POSITIONS,
        response_count=torch.tensor(2.0),
        position_count=torch.tensor(2.0),
        **options,
    )
    shares = torch.tensor(shares, dtype=torch.float32)
    reads = (shares > 0).any(dim=0).expand_as(shares) if reads is None else reads
    return replace(made, shares=shares, reads=reads)


def test_a_part_has_the_rows_of_its_own_sequences():
    part = Part.of(batch([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]), 1)
    assert part.batch.view.input_ids[:, 0].tolist() == [5, 10]
    assert part.of_rows(torch.arange(3.0)[:, None]).flatten().tolist() == [1, 2]
    assert part.of_written(torch.arange(5.0)[:, None]).flatten().tolist() == [2, 3, 4]
    assert part.shares is not None and part.shares.tolist() == [1, 0.5]
    assert part.batch.position_count == 2


def test_a_teacher_of_all_sequences_reads_the_very_batch():
    made = batch([[1.0, 0.0]] * 3)
    part = Part.of(made, 0)
    assert part.batch is made and part.rows is None and part.shares is None


def test_a_teacher_without_a_sequence_has_an_empty_part():
    part = Part.of(batch([[1.0, 0.0]] * 3), 1)
    assert len(part.batch.positions) == 0 and part.of_rows(torch.ones(3, 2)).shape == (0, 2)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_one_whose_weights_are_gathered_reads_something_if_any_process_has_its_rows(elsewhere):
    reads = torch.tensor([[True, elsewhere]] * 3)
    part = Part.of(batch([[1.0, 0.0]] * 3, reads), 1, gathers=True)
    assert len(part.batch.view.input_ids) == elsewhere
    assert not part.batch.view.rows.any() and not part.batch.positions.any()
    assert part.of_rows(torch.ones(3, 2)).shape == (0, 2)


def test_cosines_of_all_parts_are_averaged_by_share_at_their_rows():
    made = batch([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    total = None
    for number, cosines in enumerate(([0.5, 1.0, 0.0], [0.0, 1.0])):
        total = Part.of(made, number).add_rows(total, torch.tensor(cosines))
    assert total is not None and total.tolist() == [0.5, 0.25, 0.75]


def test_pictures_are_refused_by_name():
    with pytest.raises(ValueError, match="pixel_values cannot be split by sequence"):
        Part.of(batch([[1.0, 0.0]] * 2 + [[0.0, 1.0]], extra={"pixel_values": torch.ones(3)}), 0)
