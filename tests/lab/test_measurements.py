import pytest

from lab.items.measurements import ends_part, rank_curve, rank_error, rank_falls


@pytest.mark.parametrize(("last", "holds"), [(0.9, True), (0.985, True), (0.995, False)])
def test_models_part_at_the_end_where_the_last_quarter_is_a_point_below_the_first(last, holds):
    # Eight tokens, of which a quarter are two.
    first_k, last_k = ([0.0, value, *6 * [0.5]] for value in (1.0, last))
    curve = {"k": list(range(1, 9)), "first_k": {"last": first_k}, "last_k": {"last": last_k}}
    found = {"curves": {"one, untouched": curve, "one, OPRD": {}}}
    assert ends_part("one").read(found) == (holds, f"first 2 tokens 100.0%, last {last:.1%}")


def ranks(*cosines, errors=(0.3, 0.2, 0.1, 0.4), advised=8):
    curve = [
        {"rank": 4**power, "cosine": cosine, "rank_error": error}
        for power, (cosine, error) in enumerate(zip(cosines, errors, strict=True))
    ]
    return {"curve": curve, "advice": {"rank": advised}}


def test_few_directions_suffice_where_four_have_the_papers_cosine():
    assert rank_curve(ranks(0.8, 0.91, 0.95, 0.95))[0]
    assert not rank_curve(ranks(0.8, 0.89, 0.95, 0.95))[0]


def test_more_directions_carry_less_where_all_are_a_point_below_the_best_number_of_them():
    assert rank_falls(ranks(0.8, 0.9, 0.95, 0.93))[0]
    assert not rank_falls(ranks(0.8, 0.9, 0.95, 0.945))[0]
    assert not rank_falls(ranks(0.8, 0.9, 0.95, 0.96))[0]


@pytest.mark.parametrize(("advised", "near"), [(7, False), (8, True), (32, True), (33, False)])
def test_the_advised_rank_is_right_within_a_factor_of_two_of_the_least_error(advised, near):
    assert rank_error(ranks(0.8, 0.9, 0.95, 0.93, advised=advised))[0] == near
