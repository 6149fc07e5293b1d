"""What `docs/architectures.md` says of Transformers' models is so, and none is read wrongly."""

import re

import pytest
import transformers

from tests.models.architectures import PAGE, PICTURES, TEXTS, examine, page, rows, rows_of_page

MOST_USED = [
    "deepseek_v3",
    "gemma2",
    "gemma3_text",
    "gpt2",
    "gpt_oss",
    "granite",
    "llama",
    "llama4_text",
    "mistral",
    "mixtral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
]
REFUSED = {
    "bert": "cannot find the blocks",
    "gemma3n_text": r"numbers in layer 1, not \(8, 32\)",
    "mllama": r"without running all blocks, and layers \[3\] have none",
    "modernbert-decoder": "output losses: it is not one linear layer",
    "rwkv": "padding before a sequence changes states",
}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", MOST_USED)
def test_the_most_used_models_are_read_rightly(name):
    row = examine(name)
    assert row.right and row.output == "yes", row.note


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_of_a_model_is_refused_with_the_reason(name):
    assert re.search(REFUSED[name], examine(name).note)


@pytest.mark.slow(minutes=2)
def test_the_page_has_what_every_model_of_this_transformers_gives():
    found = page(list(rows(TEXTS)), list(rows(PICTURES, pictures=True)))
    written = PAGE.read_text()
    if f"Transformers {transformers.__version__}." in written:
        assert found == written, "python -m tests.models.architectures --write"
        return
    # Other versions have other models; what the page calls right must be right in them too.
    ours, theirs = rows_of_page(found), rows_of_page(written)
    right = {name for name in ours.keys() & theirs.keys() if "| all | yes |" in theirs[name]}
    assert not {name for name in right if "| all | yes |" not in ours[name]}


def test_the_page_has_a_row_for_each_of_the_most_used_models():
    shown = rows_of_page(PAGE.read_text())
    for name in MOST_USED:
        assert "| all | yes | yes |" in shown[f"## Causal language models: {name}"]
