from fractions import Fraction
from itertools import combinations_with_replacement

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oprd.core.layers import (
    PAIRINGS,
    LayerPair,
    check_pairing,
    measures,
    pair_layers,
    pairs_text,
    select_layers,
)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("all", (1, 2, 3, 4, 5, 6, 7)),
        ("last", (7,)),
        ("last:1", (7,)),
        ("last:3", (5, 6, 7)),
        ("last:7", (1, 2, 3, 4, 5, 6, 7)),
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
        ("last:5", 4, "layers='last:5' asks a model with 4 layers for more"),
        ("last:0", 4, "layers must be"),
        ("last:-1", 4, "layers must be"),
        ("last:", 4, "layers must be"),
        ("last:1:2", 4, "layers must be"),
        ("last:" + "9" * 5000, 4, "layers must be"),
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


# --- pairings ------------------------------------------------------------------------------------


def test_the_table_begins_with_the_default():
    assert next(iter(PAIRINGS)) == "proportional"
    assert {name for name in PAIRINGS if measures(name)} == {"similarity"}
    assert not measures("1:1")


@pytest.mark.parametrize("pairing", PAIRINGS)
@settings(deadline=None)
@given(st.integers(1, 12), st.integers(12, 14), st.data())
def test_every_pairing_gives_each_selected_layer_one_partner_in_order(
    pairing, students, teachers, data
):
    layers = data.draw(st.sets(st.integers(1, students), min_size=1))
    alike = torch.rand(students, teachers)
    pairs = pair_layers(tuple(layers), students, teachers, pairing, lambda: alike)
    assert [pair.student for pair in pairs] == sorted(layers)
    partners = [pair.teacher for pair in pairs]
    assert partners == sorted(partners)
    assert all(1 <= layer <= teachers for layer in partners)


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_every_pairing_keeps_layers_that_are_alike_together(pairing):
    pairs = pair_layers("all", 5, 5, pairing, lambda: torch.eye(5))
    assert pairs == tuple(LayerPair(layer, layer) for layer in range(1, 6))


def test_from_the_end_the_last_meets_the_last():
    assert pair_layers("all", 3, 5, "from_end") == ((1, 3), (2, 4), (3, 5))
    assert pair_layers("last:2", 5, 3, "from_end") == ((4, 2), (5, 3))


def test_from_the_end_a_layer_without_partner_is_refused_with_both_depths():
    message = (
        "no partner for student layer 1: it is 4 before the last of 5, and the teacher has 3 "
        r"layers. Choose layers='last:3'"
    )
    with pytest.raises(ValueError, match=message):
        pair_layers("all", 5, 3, "from_end")
    pair_layers("last:3", 5, 3, "from_end")


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.data())
def test_similar_layers_have_the_highest_sum_that_never_steps_back(students, teachers, data):
    size = students * teachers
    values = data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))
    alike = torch.tensor(values, dtype=torch.float64).reshape(students, teachers) / 8
    layers = sorted(data.draw(st.sets(st.integers(1, students), min_size=1)))
    near = [pair.teacher for pair in pair_layers(layers, students, teachers)]

    def worth(partners):
        sums = sum(
            alike[layer - 1, t - 1].item() for layer, t in zip(layers, partners, strict=True)
        )
        return sums, -sum(abs(t - n) for t, n in zip(partners, near, strict=True))

    pairs = pair_layers(layers, students, teachers, "similarity", lambda: alike)
    every = combinations_with_replacement(range(1, teachers + 1), len(layers))
    assert worth([pair.teacher for pair in pairs]) == max(map(worth, every))


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 60))
def test_layers_that_are_all_alike_meet_at_the_same_relative_depth(students, teachers):
    alike = torch.full((students, teachers), 0.1)
    pairs = pair_layers("all", students, teachers, "similarity", lambda: alike)
    assert pairs == pair_layers("all", students, teachers)


def test_similarity_is_measured_once_and_only_where_it_is_asked_for():
    calls = []

    def measure():
        calls.append(1)
        return torch.eye(4)

    for pairing in ("proportional", "from_end", "1:1", "similarity"):
        pair_layers("all" if pairing != "1:1" else (1,), 4, 4, pairing, measure)
        assert len(calls) == (pairing == "similarity")
    with pytest.raises(ValueError, match="nothing measures that"):
        pair_layers("all", 4, 4, "similarity")


@pytest.mark.parametrize(
    ("alike", "message"),
    [
        (torch.ones(3, 3), r"finite and \[2, 3\], got \(3, 3\) with 0 broken"),
        (torch.full((2, 3), torch.nan), r"got \(2, 3\) with 6 broken entries"),
        (torch.tensor([[1.0, torch.inf, 0.0], [0.0, 1.0, 0.0]]), "with 1 broken"),
    ],
)
def test_a_broken_measurement_is_refused(alike, message):
    with pytest.raises(ValueError, match=message):
        pair_layers("all", 2, 3, "similarity", lambda: alike)


@pytest.mark.parametrize(
    ("text", "layers", "expected"),
    [
        ("1:1,2:3", "all", ((1, 1), (2, 3))),
        (" 2 : 3 , 1:1 ", "all", ((1, 1), (2, 3))),
        ("3:5", "last", ((3, 5),)),
        ("1:4,3:2", (3, 1), ((1, 4), (3, 2))),
        ("1:2,2:2,3:2", "all", ((1, 2), (2, 2), (3, 2))),
        ("1:1,3:3", "odd", ((1, 1), (3, 3))),
    ],
)
def test_pairs_can_be_named_one_by_one_in_any_order_of_the_teachers_layers(text, layers, expected):
    pairs = pair_layers(layers, 3, 5, text)
    assert pairs == expected
    assert pair_layers("all", 3, 5, pairs_text(pairs)) == pairs


@pytest.mark.parametrize(
    ("text", "layers", "message"),
    [
        ("4:1", "all", "names student layer 4, and the student has 3 layers and the teacher 5"),
        ("1:1,2:6", "all", "names teacher layer 6, and the student has 3 layers and the teacher 5"),
        ("0:1", "all", "names student layer 0, and the student has 3 layers"),
        ("1:0", "all", "names teacher layer 0"),
        ("1:1", "last", r"the student's layers \[1\], and layers='last' selects others"),
    ],
)
def test_pairs_of_layers_that_are_not_there_are_refused_with_both_depths(text, layers, message):
    with pytest.raises(ValueError, match=message):
        pair_layers(layers, 3, 5, text)


@pytest.mark.parametrize(
    ("pairing", "layers", "message"),
    [
        ("similarty", "all", r"one of proportional, .* \(did you mean similarity\?\), or pairs"),
        ("from-end", "all", "did you mean from_end"),
        ("zzz", "all", "one of proportional, from_end, similarity, or pairs of a student and"),
        ("", "all", "layer_pairing must be one of"),
        ("1:1,", "all", r"such as '1:1,2:3', got '1:1,'"),
        ("1:1;2:2", "all", "such as '1:1,2:3'"),
        ("1-1", "all", "such as '1:1,2:3'"),
        ("1:2:3", "all", "such as '1:1,2:3'"),
        ("-1:1", "all", "such as '1:1,2:3'"),
        ("١:1", "all", "such as '1:1,2:3'"),
        ("9" * 5000 + ":1", "all", "such as '1:1,2:3'"),
        # YAML reads an unquoted 1:1 as 61.
        (61, "all", "in quotes, such as '1:1,2:3', got 61"),
        (None, "all", "layer_pairing must be one of"),
        ([(1, 1)], "all", "layer_pairing must be one of"),
        ("1:1,2:2,1:3", "all", "names student layer 1 more than once"),
        ("1:1,2:2", (1, 3), r"layers \[1, 2\], and layers=\(1, 3\) selects others: leave layers"),
    ],
)
def test_a_pairing_that_fits_no_models_is_refused_before_there_are_any(pairing, layers, message):
    with pytest.raises(ValueError, match=message):
        check_pairing(pairing, layers)
