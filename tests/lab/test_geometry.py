import pytest
import torch

from lab.geometry import MSE, losses_along, relative_error, split_error
from oprd.core.output.divergence import ReverseKL
from oprd.core.output.head import LMHead
from oprd.core.output.spectrum import head_spectrum

GENERATOR = torch.Generator().manual_seed(0)
WIDE, TALL = (torch.randn(*shape, generator=GENERATOR) for shape in ((5, 8), (40, 8)))
LOSSES = {"reverse KL": ReverseKL()}


def test_losses_along_a_direction_are_those_of_the_definition():
    rows = torch.randn(6, 8, generator=GENERATOR)
    direction = head_spectrum(TALL).directions[2]
    found = losses_along(LMHead(TALL), rows, direction, 0.01, LOSSES)
    log_q = (rows.double() @ TALL.double().T).log_softmax(dim=1)
    expected = 0
    for sign in (1, -1):
        moved = rows.double() + sign * 0.01 * direction
        log_p = (moved @ TALL.double().T).log_softmax(dim=1)
        expected += (log_p.exp() * (log_p - log_q)).sum(dim=1).mean() / 2
    assert found["reverse KL"] == pytest.approx(float(expected), rel=1e-6)
    assert found[MSE] == pytest.approx(0.01**2 / 8)


def test_output_losses_see_nothing_of_the_null_space():
    spectrum = head_spectrum(WIDE)
    rows = torch.randn(6, 8, generator=GENERATOR)
    seen, unseen = (
        losses_along(LMHead(WIDE), rows, spectrum.directions[place], 0.1, LOSSES)
        for place in (0, 6)
    )
    assert abs(unseen["reverse KL"]) < 1e-12 * seen["reverse KL"]
    assert unseen[MSE] == pytest.approx(seen[MSE])


def test_an_error_is_split_between_what_the_head_sees_and_what_not():
    spectrum = head_spectrum(WIDE)
    teacher = torch.randn(50, 8, generator=GENERATOR)
    seen, unseen = spectrum.directions[1], spectrum.directions[7]
    student = teacher + 0.3 * seen + 0.1 * unseen
    split = split_error(student, teacher, spectrum.directions, spectrum.rank)
    assert split.unseen_share == pytest.approx(0.1)
    projected = teacher.double() @ spectrum.directions.T
    assert split.seen == pytest.approx(0.09 / float(projected[:, :4].square().sum(1).mean()))
    assert split.unseen == pytest.approx(0.01 / float(projected[:, 4:].square().sum(1).mean()))
    whole = float(teacher.square().sum(dim=1).mean())
    assert relative_error(student, teacher) == pytest.approx(0.1 / whole, rel=1e-5)
