import pytest
import torch

from oprd.calibration.bridge.check import check_bridge
from oprd.calibration.identity import (
    drawn_rollouts,
    model_identity,
    prompts_identity,
    supervised_positions,
    tokenizer_hash,
)
from oprd.core.bridge import BridgeFitter
from oprd.core.layers import LayerPair
from tests import tiny
from tests.calibration.pairs import student, teacher

PAIRS = (LayerPair(1, 1), LayerPair(2, 2))
POSITIONS = supervised_positions("last_k", 2000)
ROLLOUTS = drawn_rollouts({"temperature": 0.7}, 512, {"thinking": False})


def identity(model):
    return model_identity(model, tiny.tokenizer())


def bridge(provenance=None):
    rows = {1: torch.randn(20, 32), 2: torch.randn(20, 32)}
    fitter = BridgeFitter(PAIRS, 32, 48)
    fitter.update(rows, {1: torch.randn(20, 48), 2: torch.randn(20, 48)})
    given = {
        "student": identity(student()),
        "teacher": identity(teacher()),
        "positions": POSITIONS,
        "rollouts": ROLLOUTS,
    }
    return fitter.solve(2, provenance=given if provenance is None else provenance)


def check(checked, **options):
    models = {"student": identity(student()), "teacher": identity(teacher())}
    models |= {role: options.pop(role) for role in list(models) if role in options}
    run = {
        "widths": (32, 48),
        "pairs": PAIRS,
        "models": models,
        "positions": POSITIONS,
        "rollouts": ROLLOUTS,
    }
    return check_bridge(checked, **{**run, **options})


def test_what_it_was_fitted_on_is_accepted_in_any_precision_and_under_any_name():
    assert check(bridge()) == []
    elsewhere = {**identity(student().bfloat16()), "model": "runs/copy"}
    assert check(bridge(), student=elsewhere) == []


def test_fewer_layers_than_it_holds_are_accepted():
    assert check(bridge(), pairs=PAIRS[1:]) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (32, 64)}, "teacher of 48, the run has 32 and 64: fit one"),
        ({"pairs": (LayerPair(1, 2),)}, "not fitted on the layer pairs 1 with 2"),
        ({"pairs": (*PAIRS, LayerPair(3, 4))}, r"pairs 3 with 4 .*student's layers \[1, 2\]"),
        ({"student": identity(tiny.model(seed=9))}, "fitted on another student"),
        ({"teacher": identity(student())}, "fitted on another teacher"),
    ],
)
def test_another_run_is_refused_with_the_way_out(options, message):
    with pytest.raises(ValueError, match=message) as raised:
        check(bridge(), **options)
    assert "oprd bridge fit" in str(raised.value)


def test_the_bridges_own_pairs_are_named_where_the_run_has_other_partners():
    run = (LayerPair(1, 2), LayerPair(2, 3))
    with pytest.raises(ValueError, match=r"set layer_pairing='1:1,2:2', or fit one for this run"):
        check(bridge(), pairs=run)
    with pytest.raises(ValueError, match="set layer_pairing='2:2', or fit one"):
        check(bridge(), pairs=run[1:])
    for options in ({"pairs": (*run, LayerPair(3, 4))}, {"student": identity(tiny.model(seed=9))}):
        with pytest.raises(ValueError) as raised:
            check(bridge(), **{"pairs": run, **options})
        assert "layer_pairing" not in str(raised.value)


def test_the_same_commit_is_the_same_model_however_it_was_loaded():
    fitted = {"model": "owner/name", "revision": "abc", "weights": "1"}
    loaded = {"model": "owner/name", "revision": "abc", "weights": "2"}
    provenance = {"student": fitted, "teacher": identity(teacher())}
    assert check(bridge(provenance), student=loaded) == []
    with pytest.raises(ValueError, match="another student"):
        check(bridge(provenance), student={**loaded, "revision": "def"})


def test_other_positions_are_reported():
    (report,) = check(bridge(), positions=supervised_positions("all", 2000))
    assert report == (
        "the bridge was fitted on positions=last_k of 2000, the run supervises positions=all."
    )


def test_rollouts_that_were_drawn_otherwise_are_reported_with_each_difference_and_the_way_out():
    drawn = drawn_rollouts({"temperature": 0.7, "top_p": 0.9}, 4096, {"thinking": True})
    (report,) = check(bridge(), rollouts=drawn)
    assert report == (
        "the bridge was fitted on rollouts drawn with top_p=1.0, max_completion_length=512, "
        "chat_template_kwargs={'thinking': False}, the run draws its own with top_p=0.9, "
        "max_completion_length=4096, chat_template_kwargs={'thinking': True}; where that matters, "
        "fit one for this run with `oprd bridge fit`, or set bridge='fit'."
    )


@pytest.mark.parametrize("rollouts", [None, "missing", {"temperature": 0.7}, "text"])
def test_what_a_bridge_does_not_say_of_its_rollouts_is_passed_over(rollouts):
    provenance = dict(bridge().provenance)
    provenance["rollouts"] = rollouts
    if rollouts == "missing":
        del provenance["rollouts"]
    assert check(bridge(provenance)) == []


@pytest.mark.parametrize("role", ["student", "teacher"])
def test_a_model_that_the_provenance_does_not_name_is_reported(role):
    provenance = dict(bridge().provenance)
    del provenance[role]
    (report,) = check(bridge(provenance))
    assert report.startswith(f"the bridge does not say which {role} it was fitted on")
    assert "oprd bridge fit" in report


def test_what_shapes_no_rollout_is_written_out():
    assert drawn_rollouts({"temperature": 0.5, "seed": 3}, 8, None) == {
        "temperature": 0.5,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "max_completion_length": 8,
        "chat_template_kwargs": None,
    }


def test_prompts_are_told_apart_by_tokens_order_and_number():
    known = [[[1, 2], [3]], [[1], [2, 3]], [[3], [1, 2]], [[1, 2]]]
    assert len({prompts_identity(prompts)["hash"] for prompts in known}) == 4
    assert prompts_identity(known[0]) == prompts_identity([(1, 2), (3,)])


def test_a_bridge_made_by_hand_is_checked_by_what_it_holds():
    made = bridge()
    made.provenance = None
    assert check(made) == []
    with pytest.raises(ValueError, match="layer pairs"):
        check(made, pairs=(LayerPair(1, 2),))


def test_a_tokenizers_hash_is_that_of_its_meanings():
    class Other:
        def get_vocab(self):
            return {**tiny.tokenizer().get_vocab(), "<new>": 300}

    assert tokenizer_hash(tiny.tokenizer()) == tokenizer_hash(tiny.tokenizer())
    assert tokenizer_hash(tiny.tokenizer()) != tokenizer_hash(Other())


def test_how_many_positions_counts_only_where_it_selects():
    assert supervised_positions("all", 5) == supervised_positions("all", 7)
    assert supervised_positions("first_k", 5) != supervised_positions("first_k", 7)
