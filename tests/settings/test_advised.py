"""What messages advise is what the settings of that run take."""

import copy
import dataclasses
import re
from collections.abc import Callable

import pytest
import yaml
from torch import nn

from oprd.calibration.bridge.check import check_bridge
from oprd.models.heads import lm_head
from oprd.models.matching import check_widths, warn_if_unrelated
from oprd.models.tokenizers import check_same_meaning
from oprd.serving.checkpoint import LOAD_HERE
from oprd.settings.own_tokens import no_own_tokens
from oprd.settings.run import OPRDConfig
from tests import tiny
from tests.calibration.test_check import PAIRS, POSITIONS, ROLLOUTS, bridge
from tests.training.runs import settings

SERVED = {
    "teacher_source": "server",
    "teacher_server_url": "http://127.0.0.1:8000",
    "teacher_server_folder": "states",
    "teacher_model_name_or_path": "teacher",
}
RUNS = {
    "a teacher": {},
    "a teacher on a server": SERVED,
    "one of several teachers": {"teachers": [{"name": "a"}, {"name": "b"}]},
    "rollouts of earlier steps": {"replay": 8},
    "diagnostics": {"diagnostics_steps": 1},
    "past the teacher": {"extrapolation": 1.5, "reference_model": "base"},
    "single tokens": {"output_loss": "sampled"},
}
VALUE = re.compile(r"(\w+)(?:=| to )('[^']*'|\d+)")


def widths(args: OPRDConfig) -> None:
    check_widths(tiny.model(), tiny.model(hidden_size=48), may_fit=args.may_fit)


def unrelated(args: OPRDConfig) -> None:
    warn_if_unrelated(0.1, may_fit=args.may_fit)


def another_bridge(args: OPRDConfig) -> None:
    check_bridge(bridge(), (32, 64), PAIRS, {}, POSITIONS, ROLLOUTS, may_fit=args.may_fit)


def other_tokens(args: OPRDConfig) -> None:
    other = copy.deepcopy(tiny.tokenizer())
    other.add_tokens(["<more>"])
    check_same_meaning(other, tiny.tokenizer(), tiny.VOCAB, no_own=no_own_tokens(args))


def advised(said: str) -> list[tuple[str, object]]:
    """The settings in a message, with their values."""
    known = {field.name for field in dataclasses.fields(OPRDConfig)}
    found = [(name, yaml.safe_load(value)) for name, value in VALUE.findall(said)]
    return [pair for pair in found if pair[0] in known]


@pytest.mark.parametrize("complain", [widths, unrelated, another_bridge, other_tokens])
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_what_is_advised_is_taken(tmp_path, caplog, complain: Callable, run):
    args = settings(tmp_path, **run)
    said = ""
    try:
        complain(next(iter(args.by_teacher().values())))
    except ValueError as error:
        said = str(error)
    said += caplog.text
    assert said
    for name, value in advised(said):
        # An output-space loss is advised in the same breath.
        beside = {"output_loss": "reverse_kl"} if name == "representation_weight" else {}
        settings(tmp_path, **{**run, **beside, name: value})


def test_every_way_out_is_found_in_a_message():
    with pytest.raises(ValueError) as raised:
        check_widths(tiny.model(), tiny.model(hidden_size=48))
    found = [("bridge", "fit"), ("state_loss", "gram"), ("representation_weight", 0)]
    assert advised(str(raised.value)) == found


@pytest.mark.parametrize("run", [RUNS["a teacher on a server"], RUNS["one of several teachers"]])
def test_a_bridge_can_always_be_named_by_its_file(tmp_path, run):
    args = next(iter(settings(tmp_path, **run).by_teacher().values()))
    assert not args.may_fit
    with pytest.raises(ValueError, match="Fit one with `oprd bridge fit` and set bridge to its"):
        widths(args)


def test_a_teacher_on_a_server_can_be_loaded_here_as_it_is_said(tmp_path):
    assert [name for name in SERVED if name in LOAD_HERE] == list(SERVED)[:3]
    left_out = dict.fromkeys(list(SERVED)[1:3])
    settings(tmp_path, **{**SERVED, **left_out, "teacher_source": "path"})


def test_what_needs_no_head_is_said_in_full(tmp_path):
    model = tiny.model()
    model.lm_head = nn.Identity()
    with pytest.raises(ValueError, match="and without a bridge of heads, needs no head") as raised:
        lm_head(model)
    needs = {"output_loss": "jsd", "diagnostics_steps": 1, "updates_per_rollout": 2, "replay": 8}
    args = settings(tmp_path, **{**needs, "max_steps": 4, **dict(advised(str(raised.value)))})
    assert not (args.reads_heads or args.measures_drift or args.fits_heads)
