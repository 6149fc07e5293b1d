"""A table of cases: what was measured, and what it advises."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from oprd.analysis.inspection.advice import advise
from oprd.analysis.inspection.facts import Facts, PairingFacts
from oprd.models.matching import RELATED_COSINE
from oprd.settings.run import OPRDConfig

PAPER = (Path(__file__).parents[3] / "docs/paper.md").read_text()

BY_DEPTH = PairingFacts("proportional", "1:1,2:3", 0.9, 0.8)
RELATED = Facts(
    widths=(576, 576),
    layers="all",
    positions="all",
    position_k=2000,
    pairings=(BY_DEPTH,),
    cosines=(0.71, 0.93),
    ends=(0.61, 0.72),
    same_states=False,
    sizes=(2.0, 30.0),
    head_problem=None,
    bridge_rank=29,
    bridge_r_squared=0.84,
    cut=0.42,
    limit=128,
)
WIDER = replace(
    RELATED,
    cosines=None,
    ends=None,
    widths=(96, 128),
    pairings=(PairingFacts("proportional", "1:1,2:3", 0.4, None),),
)
UNRELATED = replace(RELATED, pairings=(BY_DEPTH._replace(cosine=0.05),))
OWN = {"own_tokens": True, "shared": 0.875}
UNREADABLE = "the LM head of X cannot be read: it is a Sequential"

OPRD = {
    "state_loss": "mse",
    "layers": "all",
    "layer_pairing": "proportional",
    "positions": "all",
    "scale": "unit",
}
OUTPUT = {"output_loss": "reverse_kl", "representation_weight": 0}
BOTH = {
    "output_loss": "reverse_kl",
    "bridge": "fit",
    "bridge_rank": 16,
    "bridge_basis": "pca",
    "representation_weight": 10.0,
    "layers": "all",
    "layer_pairing": "proportional",
    "positions": "all",
    "scale": "unit",
}
BRIDGE = {
    "bridge": "fit",
    "bridge_rank": 29,
    "bridge_basis": "pca",
    "layers": "all",
    "layer_pairing": "proportional",
    "positions": "all",
    "scale": "unit",
}


@pytest.mark.parametrize(
    ("facts", "expected", "because"),
    [
        (RELATED, OPRD, "mean cosine of 0.800 on the student's rollouts, and from 0.25 on"),
        (
            replace(RELATED, pairings=(BY_DEPTH._replace(cosine=RELATED_COSINE),)),
            OPRD,
            "mean cosine of 0.250",
        ),
        (
            replace(RELATED, pairings=(BY_DEPTH._replace(cosine=RELATED_COSINE - 0.01),)),
            OUTPUT,
            "mean cosine of 0.240 on the student's rollouts, below the 0.25",
        ),
        (UNRELATED, OUTPUT, "mean cosine of 0.050"),
        (WIDER, BOTH, "the student's states are 96 wide and the teacher's 128"),
        (replace(WIDER, bridge_rank=5), {**BOTH, "bridge_rank": 5}, "96 wide"),
        (replace(WIDER, bridge_rank=0), OUTPUT, "96 wide"),
        (replace(RELATED, same_states=True), OUTPUT, "they differ in their LM heads"),
        (replace(WIDER, head_problem=UNREADABLE), BRIDGE, UNREADABLE),
        (replace(UNRELATED, head_problem=UNREADABLE), BRIDGE, "mean cosine of 0.050"),
        # Another vocabulary, whatever its heads are and whether widths are equal.
        (replace(WIDER, **OWN), {"teacher_tokenizer": "own", **BOTH}, "tokens that begin alike"),
        (replace(UNRELATED, **OWN), {"teacher_tokenizer": "own", **OUTPUT}, "that begin alike"),
        (
            replace(WIDER, head_problem=UNREADABLE, **OWN),
            {"teacher_tokenizer": "own", **BRIDGE},
            UNREADABLE,
        ),
        (replace(RELATED, **OWN), {"teacher_tokenizer": "own", **OPRD}, "mean cosine of 0.800"),
        # States need no head.
        (replace(RELATED, head_problem=UNREADABLE), OPRD, "mean cosine of 0.800"),
    ],
)
def test_the_method_follows_from_what_was_measured(facts, expected, because):
    advice = advise(facts)
    common = {"max_completion_length": 128, "learning_rate": "auto"}
    assert advice.settings == {**expected, **common}
    assert because in advice.reasons[0].because


CASES = [
    RELATED,
    UNRELATED,
    WIDER,
    replace(WIDER, bridge_rank=0),
    replace(WIDER, head_problem=UNREADABLE),
    replace(WIDER, **OWN),
]


@pytest.mark.parametrize("facts", CASES)
def test_what_is_advised_is_a_run(facts, tmp_path):
    settings = advise(facts).settings
    made = OPRDConfig(output_dir=str(tmp_path), **settings).to_dict()
    assert {name: made[name] for name in settings} == settings


@pytest.mark.parametrize("facts", CASES)
def test_every_setting_but_a_switch_has_its_reason(facts):
    advice = advise(facts)
    reasons = {reason.setting for reason in advice.reasons}
    assert advice.settings.keys() - reasons <= {"representation_weight"}
    assert all(reason.because.strip().endswith(".") for reason in advice.reasons)


def reason(facts, setting):
    (found,) = [reason.because for reason in advise(facts).reasons if reason.setting == setting]
    return found


def test_the_scale_names_how_states_grow():
    because = reason(RELATED, "scale")
    assert "by a factor of 15 between layers (root mean square 2 to 30). Plain states," in because
    through = reason(replace(WIDER, head_problem=UNREADABLE), "scale")
    assert through.endswith("Through a bridge they meet at unit length, as in the paper.")


def test_the_share_of_tokens_that_meet_is_named():
    assert "at 88% of the student's tokens" in reason(replace(WIDER, **OWN), "teacher_tokenizer")


def test_layers_and_positions_name_their_cosines_where_there_are_any():
    assert reason(RELATED, "layers").startswith("pairs have cosines of 0.710 to 0.930; in the lab")
    assert "0.610 on the first quarter of responses and 0.720 on" in reason(RELATED, "positions")
    through = replace(WIDER, head_problem=UNREADABLE)
    assert reason(through, "layers").startswith("in the lab")
    assert reason(through, "positions").startswith("what is not")


def test_a_better_pairing_takes_the_place_of_the_default():
    similar = PairingFacts("similarity", "1:2,2:3", 0.95, 0.9)
    facts = replace(RELATED, pairings=(BY_DEPTH, similar))
    assert advise(facts).settings["layer_pairing"] == "1:2,2:3"
    assert "by similarity the mean cosine of the pairs is 0.900, and 0.800" in reason(
        facts, "layer_pairing"
    )
    little = replace(RELATED, pairings=(BY_DEPTH, similar._replace(cosine=0.81)))
    assert advise(little).settings["layer_pairing"] == "proportional"
    assert "no better by similarity (0.810)" in reason(little, "layer_pairing")


def test_pairs_that_only_another_pairing_relates_are_found():
    apart = BY_DEPTH._replace(cosine=0.1)
    similar = PairingFacts("similarity", "1:2,2:3", 0.95, 0.7)
    advice = advise(replace(RELATED, pairings=(apart, similar)))
    assert advice.settings["layer_pairing"] == "1:2,2:3" and "scale" in advice.settings


def test_through_a_bridge_pairs_are_chosen_by_cka():
    similar = PairingFacts("similarity", "1:2,2:3", 0.95, 0.01)
    facts = replace(UNRELATED, pairings=(*UNRELATED.pairings, similar), head_problem=UNREADABLE)
    assert advise(facts).settings["layer_pairing"] == "1:2,2:3"
    assert "the mean CKA of the pairs is 0.950" in reason(facts, "layer_pairing")


def test_what_was_asked_for_stays():
    facts = replace(RELATED, layers="last:2", positions="last_k", position_k=50)
    settings = advise(facts).settings
    assert (settings["layers"], settings["positions"], settings["position_k"]) == (
        "last:2",
        "last_k",
        50,
    )
    assert reason(facts, "layers").endswith("; as asked for.")
    assert reason(facts, "positions").endswith("; as asked for.")


def test_a_bridge_has_a_rank_in_which_states_of_unit_length_can_turn():
    for facts in (WIDER, replace(WIDER, head_problem=UNREADABLE)):
        assert advise(replace(facts, bridge_rank=1)).settings["bridge_rank"] == 2


def test_no_advised_rank_is_said_and_the_papers_is_taken():
    facts = replace(WIDER, head_problem=UNREADABLE, bridge_rank=0)
    assert advise(facts).settings["bridge_rank"] == 8
    assert "no rank of a bridge is advised" in reason(facts, "bridge_rank")


def test_beside_an_output_loss_stands_a_bridge_where_it_would_carry():
    assert "a bridge of rank 29 would carry R² = 0.84" in reason(WIDER, "bridge_rank")
    nothing = reason(replace(WIDER, bridge_rank=0), "bridge")
    assert nothing.startswith("left out: no rank of a bridge is advised")
    assert "tried between models of unequal widths alone" in reason(UNRELATED, "bridge")


@pytest.mark.parametrize(("cut", "said"), [(0.42, True), (0.05, False)])
def test_responses_that_were_cut_are_pointed_out(cut, said):
    because = reason(replace(RELATED, cut=cut), "max_completion_length")
    assert f"{cut:.0%} were cut" in because
    assert ("a higher limit" in because) == said


def test_figures_of_the_lab_stand_on_its_page():
    texts = " ".join(r.because for facts in CASES for r in advise(facts).reasons)
    named = set(re.findall(r"\d+\.\d%|[\d.]+(?= points)|\[0\.9, 15\.2\]|[25]e-[45]", texts))
    assert {
        "99.9%",
        "91.8%",
        "85.7%",
        "65.7%",
        "24.4%",
        "69.0%",
        "16.0",
        "8.1",
        "15.3",
        "18.9",
        "0.6",
        "10.1",
    } <= named
    page = PAPER.replace("0.0002", "2e-4").replace("5e-05", "5e-5").replace("+", "")
    assert not [figure for figure in named if figure not in page]
