"""Which rows of two models meet at tokens of two vocabularies."""

from dataclasses import replace

import pytest
import torch

from oprd.core.output.chunked import sum_losses
from oprd.core.output.divergence import ReverseKL
from oprd.core.output.head import LMHead
from oprd.models.aligned import Aligned, teacher_rows
from oprd.models.batch import MicroBatch
from oprd.models.own_tokens import OwnTokens
from oprd.models.special_tokens import SpecialTokens
from tests.models.built_tokenizers import merging

COUNT = torch.tensor(2.0)


def made(behind, ahead, response):
    response = torch.tensor(response).bool()
    ids = torch.zeros(len(response), response.shape[1] + 1, dtype=torch.long)
    batch = MicroBatch.of_rollouts(
        ids, torch.ones_like(ids), response, response, response_count=COUNT, position_count=COUNT
    )
    return replace(batch, behind=torch.tensor(behind), ahead=torch.tensor(ahead))


def test_the_teachers_rows_stand_once_each_in_the_order_of_their_sequences():
    """A state that two tokens meet is one row; that of another sequence is another."""
    batch = made(
        behind=[[0, 1, 1, 3], [3, 0, 3, 3], [0, 0, 0, 0]],
        ahead=[[0] * 4] * 3,
        response=[[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 0]],
    )
    assert teacher_rows(batch).tolist() == [0, 1, 1, 2, 3, 3, 4]


def test_rows_of_the_same_classes_stand_in_one_pair_and_those_of_one_way_in_none():
    student, teacher = merging("a", "b"), merging("b", "c")
    own = OwnTokens(student, teacher, SpecialTokens({}, ()))
    places = own.places([b"", b"b", b"", b"c"])
    batch = made(behind=[[0, 1, 2, 3]], ahead=[places], response=[[1, 1, 1, 1]])
    sizes = len(student), len(teacher)
    rows = torch.randn(4, 3, requires_grad=True), torch.randn(4, 5)
    heads = LMHead(torch.randn(sizes[0], 3)), LMHead(torch.randn(sizes[1], 5))
    aligned = own.aligned(sizes)
    pairs = aligned.pairs(batch, rows, heads, 1.0)
    assert [pair.mask.tolist() for pair in pairs] == [[[1, 0, 1, 0]], [[0, 1, 0, 0]]]
    for pair, chosen in zip(pairs, ([0, 2], [1]), strict=True):
        assert torch.equal(pair.student_rows, rows[0][chosen])
        assert torch.equal(pair.teacher_rows, rows[1][chosen])
    assert isinstance(aligned, Aligned) and pairs[0].student_rows.requires_grad


@pytest.mark.parametrize("response", [[0, 0, 0, 0], [0, 0, 0, 1]])
def test_where_nothing_is_compared_the_head_has_its_part_in_the_graph(response):
    """No response at all, or one token that can go on in a single way."""
    student, teacher = merging("a", "b"), merging("b", "c")
    own = OwnTokens(student, teacher, SpecialTokens({}, ()))
    batch = made([[0, 1, 2, 3]], [own.places([b"", b"b", b"", b"c"])], [response])
    sizes, count = (len(student), len(teacher)), sum(response)
    rows = torch.randn(count, 3, requires_grad=True), torch.randn(count, 5)
    weight = torch.randn(sizes[0], 3, requires_grad=True)
    heads = LMHead(weight), LMHead(torch.randn(sizes[1], 5))
    pairs = own.aligned(sizes).pairs(batch, rows, heads, 1.0)
    total = sum_losses(pairs, ReverseKL(), "sequence", batch.response).total
    total.backward()
    assert total == 0 and weight.grad is not None and weight.grad.count_nonzero() == 0
