"""The costs that docs/scale.md counts."""

import runpy
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from oprd.analysis.shapes import SHAPES
from oprd.core.layers import pair_layers

ROOT = Path(__file__).parents[2]
SCALE = runpy.run_path(str(ROOT / "benchmarks" / "scale.py"))


@pytest.mark.parametrize(("ours", "named"), [("1.5B", "qwen2.5-1.5b"), ("4B", "qwen3-4b")])
def test_a_shape_has_the_weights_of_its_model(ours, named):
    options = {**SHAPES[named], "tie_word_embeddings": True}
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    # Norms and biases are not counted.
    assert SCALE["SHAPES"][ours].weights == pytest.approx(model.num_parameters(), rel=1e-3)


@pytest.mark.parametrize("names", [*SCALE["PAIRS"], ("8B", "4B"), ("8B", "1.5B")])
def test_the_states_that_wait_are_those_of_the_layers_that_a_run_pairs(names):
    student, teacher = (SCALE["SHAPES"][name] for name in names)
    pairs = pair_layers("all", student.layers, teacher.layers)
    read = {pair.teacher for pair in pairs}
    assert SCALE["rows"](student, teacher, 100) == len(read) * 100 * teacher.width * 2


def test_the_page_holds_the_tables_that_its_command_prints(capsys):
    SCALE["main"]()
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    for table in capsys.readouterr().out.strip().split("\n\n"):
        assert table in page


def test_the_check_at_small_size_is_what_the_counts_say():
    shape = SCALE["Shape"](6, 896, 4864, 14, 2, 64, 151936, True)
    tokens = 192
    parts = SCALE["update"](shape, shape, tokens)
    floor = parts["teacher"] + 3 / 4 * parts["student"]
    assert (floor + parts["heads"]) / floor == pytest.approx(2.50, abs=0.01)
