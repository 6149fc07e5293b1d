import pytest

from lab.table import reached


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ([10.0, 30.0, 20.0], "20"),
        ([10.0, None, 20.0], "20, reached by 2 of 3"),
        ([10.0, None, None], "reached by 1 of 3"),
        ([None, None, None], "not reached"),
        ([12.0], "12"),
    ],
)
def test_the_steps_to_the_target_are_a_median_over_all_seeds_that_says_how_many_got_there(
    when, text
):
    assert reached(when) == text
