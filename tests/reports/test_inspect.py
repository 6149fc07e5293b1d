import copy
import io
import re

from rich.console import Console

from oprd.reports.inspect import print_advice, print_inspection, print_tokens
from oprd.reports.inspect_picture import plot_inspection
from tests.reports.test_bridge import REPORT as BRIDGE


def layer(student, teacher, cosine=0.875):
    return {
        "student": student,
        "teacher": teacher,
        "cosine": cosine,
        "cka": 0.625,
        "size": {"student": 3.0, "teacher": 4.0},
        "effective_rank": {"student": 12.3, "teacher": 45.6},
    }


HEAD = {"vocabulary": 49152, "rank": 2, "condition": 50.1, "values": [3.0, 1.0, 1e-9]}
TOKENS = {
    "vocabulary": {"student": 260, "teacher": 261, "different": 0, "first_difference": None},
    "template": {"student": None, "teacher": "{{ x }}", "first_difference": None},
    "prompt": {
        "student": {"text": "What is 1 + 1?", "tokens": 7},
        "teacher": {"text": "What is 1 + 1?", "tokens": 7},
        "first_difference": None,
    },
    "stops": {"student": ["<eos>"], "teacher": ["<eos>", "<end>"]},
}
REPORT = {
    "tokens": TOKENS,
    "models": {
        "student": {"layers": 2, "width": 32},
        "teacher": {"layers": 3, "width": 32},
    },
    "rollouts": {"count": 64, "mean_tokens": 20.5, "longest": 40, "empty": 0.0, "cut": 0.25},
    "rows": {"read": 2000, "supervised": 1800, "drawn": 1024, "own": False, "shared": 1.0},
    "similarity": [[1.0, 0.2, 0.1], [0.3, 0.5, 0.9]],
    "pairings": [
        {"name": "proportional", "pairs": "1:1,2:3", "cka": 0.625, "cosine": 0.875},
        {"name": "similarity", "pairs": "1:1,2:2", "cka": 0.75, "cosine": None},
    ],
    "layers": [layer(1, 1), layer(2, 3)],
    "ends": {
        "k": [1, 2, 4, 8],
        "quarter": 1,
        "first_k": {"last": [0.1, 0.2, 0.3, 0.6], "mean": [0.5, 0.5, 0.5, 0.7]},
        "last_k": {"last": [0.9, 0.8, 0.7, 0.6], "mean": [0.8, 0.8, 0.8, 0.7]},
        "quarters": {"last": [0.2, 0.8], "mean": [0.5, 0.8]},
    },
    "bridge": BRIDGE,
    "heads": {"student": HEAD, "teacher": HEAD, "same": True},
    "advice": {
        "method": "OPRD",
        "settings": {"layers": "all", "learning_rate": 1e-5},
        "reasons": [["layers", "measured."], ["bridge", "none is needed."]],
    },
}


def printed(show, report, width=100):
    out = io.StringIO()
    show(report, Console(file=out, width=width))
    return out.getvalue()


def test_both_ways_to_read_text_stand_side_by_side():
    text = printed(print_tokens, REPORT)
    assert re.search(r"tokens\s+│ 260\s+│ 261\s+│ none", text)
    assert re.search(r"chat template\s+│ none\s+│ 7 characters", text)
    assert text.count("What is 1 + 1?") == 1


def test_stop_tokens_that_are_the_same_are_said_once():
    report = copy.deepcopy(REPORT)
    report["tokens"]["stops"]["teacher"] = ["<eos>"]
    assert "Responses end at <eos>, as with the teacher." in printed(print_inspection, report)


def test_what_differs_first_is_shown_and_both_prompts():
    report = copy.deepcopy(REPORT)
    parts = {"at": 3, "student": "<|u|>", "teacher": "[INST]"}
    report["tokens"]["prompt"]["first_difference"] = parts
    report["tokens"]["prompt"]["teacher"] = {"problem": "is refused"}
    text = printed(print_tokens, report, 200)
    assert "character 3: '<|u|>', '[INST]'" in text
    assert "As the teacher's own tokenizer writes it" in text and "is refused" in text
    report["tokens"]["vocabulary"] |= {"different": 1200, "first_difference": [7, "a", None]}
    text = printed(print_tokens, report, 200)
    assert "id 7: 'a', None (1,200 differ)" in text
    assert "As the teacher reads it, in tokens of its own: is refused" in text


def test_where_the_teacher_reads_its_own_tokens_the_share_that_meets_is_said():
    report = copy.deepcopy(REPORT)
    assert "have read the same" not in printed(print_inspection, report)
    report["rows"] |= {"own": True, "shared": 0.625}
    said = " ".join(printed(print_inspection, report).split())
    assert "Both models have read the same at 62.5% of the student's tokens" in said


def test_the_figures_stand_in_tables():
    text = printed(print_inspection, REPORT)
    assert "student 2 × 32 and teacher 3 × 32 (layers × width), on 64 rollouts" in text
    assert "Responses end at <eos>, with the teacher at <eos>, <end>." in text
    assert re.search(r"2:3\s+│ 0\.875\s+│ 0\.625 │ 4\s+│ 0\.75\s+│ 12\.3, 45\.6", text)
    assert "Pairs by proportional: mean CKA 0.625, cosine 0.875." in text
    assert "Pairs by similarity: mean CKA 0.750." in text
    assert "last layer 0.200 on the first 2 tokens, 0.800 on the last 2, 0.600 on all" in text
    assert "A bridge of the pairs 1:2, 2:3" in text
    assert re.search(r"teacher \(the student's\)\s+│ 49,152 │ 2 of 3 directions │ 50\.1", text)
    assert text.rstrip().endswith("Advised: OPRD.")


def test_each_advised_setting_stands_with_its_reason():
    text = printed(print_advice, REPORT["advice"])
    assert re.search(r"layers\s+│ all\s+│ measured\.", text)
    assert re.search(r"bridge\s+│ -\s+│ none is needed\.", text)
    assert re.search(r"learning_rate\s+│ 1e-05\s+│", text)


def test_of_many_layers_some_are_shown_the_first_and_the_last_among_them():
    text = printed(print_inspection, {**REPORT, "layers": [layer(n, n) for n in range(1, 31)]})
    shown = re.findall(r"^│ (\d+):\d+ ", text, flags=re.MULTILINE)
    assert len(shown) == 12 and shown[0] == "1" and shown[-1] == "30"
    assert "(12 of 30)" in text


HOSTILE = "[red]<script>alert(1)</script>\x1b[2J\x9b\n[/nothing] $\\alpha$"


def hostile():
    report = copy.deepcopy(REPORT)
    tokens = report["tokens"]
    tokens["prompt"]["student"]["text"] = tokens["prompt"]["teacher"]["text"] = HOSTILE
    tokens["stops"]["student"] = [HOSTILE]
    tokens["vocabulary"] |= {"different": 1, "first_difference": [0, HOSTILE, HOSTILE]}
    parts = {"at": 0, "student": HOSTILE, "teacher": HOSTILE}
    tokens["template"]["first_difference"] = tokens["prompt"]["first_difference"] = parts
    report["heads"]["teacher"] = {"problem": HOSTILE}
    report["advice"]["reasons"][0][1] = HOSTILE
    report["advice"]["settings"]["layers"] = HOSTILE
    report["pairings"][0]["name"] = HOSTILE
    return report


def test_text_of_strangers_steers_nothing():
    shown = printed(print_tokens, hostile(), 400) + printed(print_inspection, hostile(), 400)
    assert shown.count("[red]") >= 8 and "\\x1b[2J" in shown
    assert not {c for c in shown if not c.isprintable()} - {"\n"}


def test_the_picture_is_drawn_of_what_there_is(tmp_path):
    heads = {"student": HEAD, "teacher": {"problem": "no"}, "same": False}
    layers = [layer(1, 1, None), layer(2, 3, None)]
    report = {**REPORT, "ends": None, "layers": layers, "heads": heads}
    plot_inspection(report, tmp_path / "i.png")
    assert (tmp_path / "i.png").read_bytes()[:4] == b"\x89PNG"


def test_the_picture_holds_no_text_of_strangers(tmp_path):
    plot_inspection(REPORT, tmp_path / "plain.png")
    assert (tmp_path / "plain.png").read_bytes()[:4] == b"\x89PNG"
    plot_inspection(hostile() | {"heads": REPORT["heads"]}, tmp_path / "hostile.png")
    assert (tmp_path / "plain.png").read_bytes() == (tmp_path / "hostile.png").read_bytes()
