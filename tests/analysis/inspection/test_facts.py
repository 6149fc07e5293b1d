import pytest

from oprd.analysis.inspection.facts import Facts
from tests.analysis.inspection.test_measure import measured
from tests.calibration.pairs import sibling, student, teacher

ASKED = {"layers": "all", "positions": "last_k", "position_k": 3, "limit": 64}


def test_facts_are_what_was_measured():
    figures = measured((student(), sibling()))
    facts = Facts.of(figures, **ASKED)
    assert (facts.widths, facts.limit, facts.cut) == ((32, 32), 64, 1)
    cosines = [pair["cosine"] for pair in figures["layers"]]
    assert facts.cosines == (min(cosines), max(cosines))
    assert facts.cosine == pytest.approx(sum(cosines) / 3)
    sizes = [pair["size"]["teacher"] for pair in figures["layers"]]
    assert facts.sizes == (min(sizes), max(sizes))
    ends = figures["ends"]
    assert facts.ends == tuple(ends["quarters"]["last"])
    assert ends["k"][ends["quarter"]] == round(ends["k"][-1] / 4)
    assert facts.head_problem is None and facts.related


def test_other_widths_have_no_cosine():
    facts = Facts.of(measured((student(), teacher())), **ASKED)
    assert facts.cosine is facts.cosines is facts.ends is None and not facts.related


def test_the_first_problem_of_a_head_is_kept():
    figures = measured((student(), teacher()))
    figures["heads"]["teacher"] = {"problem": "it is bent"}
    assert Facts.of(figures, **ASKED).head_problem == "it is bent"


def test_the_bridge_is_judged_at_the_measured_rank_nearest_to_the_advised_one():
    figures = measured((student(), teacher()))
    curve = [{"rank": rank, "r_squared": rank / 100} for rank in (1, 2, 4, 8, 16, 32)]
    figures["bridge"] |= {"curve": curve, "advice": {"rank": 14}}
    facts = Facts.of(figures, **ASKED)
    assert (facts.bridge_rank, facts.bridge_r_squared) == (14, 0.16)
