"""Files of settings: whatever they hold, they are read or refused in a sentence."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from oprd.cli.arguments import parse
from oprd.settings.objective import ObjectiveConfig
from oprd.settings.run import OPRDConfig
from tests.fuzzing.drawn import FEW, OURS, damaged, json_values

WHOLE = b"""\
# A run.
learning_rate: 1.0e-5
max_steps: 10
layers: [1, 2]
positions: last_k
stages:
  - {steps: 5, output_loss: topk, output_loss_kwargs: {k: 4}}
  - {steps: 5}
model_init_kwargs: &shared {dtype: float32}
teacher_model_init_kwargs: *shared
report_to: none
"""
# Every setting of ours; those above them are Transformers' and TRL's.
OWN = sorted(
    {*OPRDConfig.__annotations__, *ObjectiveConfig.__annotations__} - {"output_dir", "eval_tasks"}
)


def read(path: Path) -> None:
    before = dict(os.environ)
    try:
        parse(["--config", str(path), "--output_dir", str(path.parent), "--use_cpu", "true"])
    except (*OURS, ImportError):
        pass
    finally:
        os.environ.clear()
        os.environ.update(before)


@FEW
@given(text=damaged(WHOLE))
def test_no_file_of_settings_is_another_kind_of_error(tmp_path: Path, text: bytes):
    path = tmp_path / "run.yaml"
    path.write_bytes(text)
    read(path)


@FEW
@given(text=st.text(st.sampled_from("a:-[]{}&*!|>%@#'\"\n ,?~1.<"), max_size=30))
def test_no_text_of_settings_is_another_kind_of_error(tmp_path: Path, text: str):
    path = tmp_path / "run.yaml"
    path.write_text(f"max_steps: 3\n{text}")
    read(path)


@FEW
@given(values=st.dictionaries(st.sampled_from(OWN), json_values(), min_size=1, max_size=2))
def test_no_value_of_a_setting_is_another_kind_of_error(tmp_path: Path, values: dict[str, Any]):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), errors="surrogatepass")
    read(path)


DOUBLED = "\n".join(f"  - &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))


@pytest.mark.parametrize(
    "name", ["layers", "model_init_kwargs", "stages", "learning_rate", "other"]
)
def test_a_few_lines_that_stand_for_many_are_refused_at_once(tmp_path: Path, name: str):
    path = tmp_path / "run.yaml"
    path.write_text(f"{name}:\n  - &a0 [x, x]\n{DOUBLED}\n")
    with pytest.raises(ValueError, match="anchors that stand for over 100,000 values"):
        parse(["--config", str(path), "--output_dir", str(tmp_path)])
