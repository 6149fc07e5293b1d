import pytest
from hypothesis import given
from hypothesis import strategies as st

from oprd.core.layers import LayerPair, pair_layers, select_layers


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", (1, 2, 3, 4, 5, 6, 7)),
        ("last", (7,)),
        ("even", (2, 4, 6)),
        ("odd", (1, 3, 5, 7)),
        ("every:3", (3, 6, 7)),
        ("every:7", (7,)),
        ("every:1", (1, 2, 3, 4, 5, 6, 7)),
        ((5, 2, 7), (2, 5, 7)),
        ([1], (1,)),
    ],
)
def test_a_specification_selects_the_layers_it_names(spec, expected):
    assert select_layers(spec, 7) == expected


@pytest.mark.parametrize(
    ("spec", "num_layers", "message"),
    [
        ((0,), 4, "layer 0 is outside 1..4"),
        ((-1,), 4, "layer -1 is outside 1..4"),
        ((5,), 4, "layer 5 is outside 1..4"),
        ((2, 2), 4, "layers repeat"),
        ((), 4, "selects no layer"),
        ("even", 1, "selects no layer"),
        ("first", 4, "layers must be"),
        ("every:0", 4, "layers must be"),
        ("every:5", 4, "goes beyond the 4 layers of a model: lower the number"),
        ("every:99", 3, 'goes beyond the 3 layers of a model: .*"last"'),
        ("every:-2", 4, "layers must be"),
        ("every:", 4, "layers must be"),
        ("", 4, "layers must be"),
        ((1.0,), 4, "layer numbers are integers"),
        ((True,), 4, "layer numbers are integers"),
        ("all", 0, "at least one layer"),
    ],
)
def test_a_bad_specification_is_refused_with_its_value(spec, num_layers, message):
    with pytest.raises(ValueError, match=message):
        select_layers(spec, num_layers)


def test_equal_depths_pair_each_layer_with_itself():
    assert pair_layers((1, 3, 5), 5, 5) == (LayerPair(1, 1), LayerPair(3, 3), LayerPair(5, 5))


@given(st.integers(2, 60), st.integers(1, 60), st.data())
def test_pairs_follow_equation_11_with_halves_to_even(students, teachers, data):
    layers = data.draw(st.sets(st.integers(1, students), min_size=1))
    from fractions import Fraction

    expected = tuple(
        (layer, round(Fraction(layer - 1, students - 1) * (teachers - 1)) + 1)
        for layer in sorted(layers)
    )
    assert pair_layers(tuple(layers), students, teachers) == expected


def test_halves_round_to_even():
    # (2−1)/(3−1)·(4−1) = 1.5 rounds to 2; (2−1)/(3−1)·(2−1) = 0.5 rounds to 0.
    assert pair_layers((2,), 3, 4) == (LayerPair(2, 3),)
    assert pair_layers((2,), 3, 2) == (LayerPair(2, 1),)


def test_a_student_of_one_layer_meets_the_teachers_last():
    assert pair_layers((1,), 1, 6) == (LayerPair(1, 6),)


def test_a_student_layer_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"layer 4 is outside 1\.\.3"):
        pair_layers((4,), 3, 6)
