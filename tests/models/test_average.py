"""The moving average of weights in pieces and elsewhere; of whole ones see `test_own`."""

import pytest
import torch

from oprd.models.average import MovingAverage
from tests import tiny


def test_weights_in_pieces_have_the_average_of_whole_ones_and_its_file_serves_both(
    tmp_path, two_processes
):
    errors = two_processes("training.fsdp2_average", tmp_path)
    assert not any(errors), errors


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_is_taken_where_a_teacher_waits(dtype):
    """The meta device stands for any that is not the student's."""
    student, teacher = tiny.model(seed=1), tiny.model(seed=1).to("meta", dtype)
    average = MovingAverage(lambda: student, lambda: teacher, 0.5)
    average.update()
    assert all(average._mean(followed).is_meta for followed in average._followed())
