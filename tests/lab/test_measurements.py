import pytest

from lab.items.measurements import (
    blind,
    cost,
    deterministic,
    ends_part,
    linear,
    merged,
    null_space,
    rank_advised,
    rank_curve,
    rank_falls,
)
from lab.methods import MERGED_PURE


@pytest.mark.parametrize(("last", "holds"), [(0.9, True), (0.985, True), (0.995, False)])
def test_models_part_at_the_end_where_the_last_quarter_is_a_point_below_the_first(last, holds):
    # Eight tokens, of which a quarter are two.
    first_k, last_k = ([0.0, value, *6 * [0.5]] for value in (1.0, last))
    curve = {"k": list(range(1, 9)), "first_k": {"last": first_k}, "last_k": {"last": last_k}}
    found = {"curves": {"one, untouched": curve, "one, OPRD": {}}}
    assert ends_part("one").read(found) == (holds, f"first 2 tokens 100.0%, last {last:.1%}")


def ranks(*cosines, advised=8):
    curve = [{"rank": 4**power, "cosine": cosine} for power, cosine in enumerate(cosines)]
    return {"curve": curve, "advice": {"rank": advised}}


def test_few_directions_suffice_where_four_have_the_papers_cosine():
    assert rank_curve(ranks(0.8, 0.91, 0.95, 0.95))[0]
    assert not rank_curve(ranks(0.8, 0.89, 0.95, 0.95))[0]


def test_more_directions_carry_less_where_all_are_a_point_below_the_best_number_of_them():
    assert rank_falls(ranks(0.8, 0.9, 0.95, 0.93))[0]
    assert not rank_falls(ranks(0.8, 0.9, 0.95, 0.945))[0]
    assert not rank_falls(ranks(0.8, 0.9, 0.95, 0.96))[0]


@pytest.mark.parametrize(("advised", "near"), [(7, False), (8, True), (32, True), (33, False)])
def test_the_advised_rank_is_right_within_a_factor_of_two_of_the_highest_cosine(advised, near):
    assert rank_advised(ranks(0.8, 0.9, 0.95, 0.93, advised=advised))[0] == near


@pytest.mark.parametrize(
    ("snr", "others", "holds"), [(2.0, 0.0, True), (None, 0.0, False), (2.0, 1e-9, False)]
)
def test_only_the_sampled_token_has_noise_where_no_other_gradient_varies(snr, others, holds):
    clean = {"tokens": {"snr": 1.0, "variance_of_others": {"OPRD": 0.0}}}
    point = {"tokens": {"snr": snr, "variance_of_others": {"OPRD": 0.0, "KL": others}}}
    assert deterministic({"training": [clean], "line": [point]})[0] == holds


@pytest.mark.parametrize(("slope", "holds"), [(1.0, True), (1.19, True), (1.21, False), (0, False)])
def test_the_signal_falls_linearly_within_two_standard_errors_of_every_slope(slope, holds):
    slopes = {"line": {"slope": 1.0, "error": 0.1}, "training": {"slope": slope, "error": 0.1}}
    assert linear({"slopes": slopes})[0] == holds


def test_less_is_left_in_the_null_space_where_the_mean_over_seeds_is_lower():
    def found(*of_states):
        errors = {"OPRD": of_states, "reverse KL": (0.3, 0.5)}
        return {"errors": {m: [{"unseen": v} for v in of] for m, of in errors.items()}}

    assert null_space(found(0.1, 0.6)) == (True, "error left there: OPRD 35.0%, reverse KL 40.0%")
    assert not null_space(found(0.1, 0.8))[0]


def head(*losses, values=(10.0, 2.0, 0.0), rank=2):
    along = [
        {"i": i, "value": value, "losses": {"reverse KL": loss}}
        for i, (value, loss) in enumerate(zip(values, losses, strict=True), start=1)
    ]
    return {"rank": rank, "along": along}


@pytest.mark.parametrize(
    ("weakest", "holds"), [(1.0, True), (0.35, True), (0.3, False), (2.9, True), (3.1, False)]
)
def test_the_weakest_direction_that_a_head_sees_is_told_within_a_factor_of_three(weakest, holds):
    # (10 / 2)² = 25.
    heads = {"a": head(25.0, 1.0, 1e-9), "b": head(25.0, weakest, 1e-9)}
    found, why = blind({"heads": heads})
    assert found == holds
    assert why.startswith("a measured 25, (σ_1/σ_d)² 25; b measured ")


@pytest.mark.parametrize(
    ("whole", "memory", "holds"), [(1.5, 0.4, True), (1.4, 0.4, False), (1.5, 0.5, False)]
)
def test_an_update_is_cheaper_where_it_is_faster_and_takes_less_memory(whole, memory, holds):
    def measured(**of):
        objectives = [{"name": name, **entry} for name, entry in of.items()]
        return {"points": [{"objectives": objectives}]}

    rounds = {"each_round": [1.0, 1.0, 2.0]}
    time = measured(oprd=rounds, naive_topk={"each_round": [whole, whole, 9.0]})
    peaks = measured(oprd={"transient_bytes": 100 * memory}, naive_topk={"transient_bytes": 100})
    read = cost("a model").read({"cases": {"a model": {"time": time, "memory": peaks}}})
    assert read == (holds, f"{whole:.2f} times as fast with {memory:.0%} of the memory")


@pytest.mark.parametrize(("sorting", "holds"), [(0.88, True), (0.86, False)])
def test_specialists_are_merged_where_neither_task_has_lost_more_than_three_points(sorting, holds):
    student = {"sums": 0.93, "sorting": sorting}
    by_task = {
        "the specialist of sums": [{"sums": 0.95, "sorting": 0.0}],
        "the specialist of sorting": [{"sums": 0.0, "sorting": 0.9}],
        MERGED_PURE: [student, student],
    }
    assert merged({"by_task": by_task})[0] == holds
