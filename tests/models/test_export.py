"""An export stops where its student was trained to, and computes what the student does."""

from pathlib import Path

import pytest
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig

from oprd.models import adapters
from oprd.models.adapters import save_generation
from oprd.models.export import export_model
from oprd.models.load import load_model
from oprd.models.probe import close, probe
from tests import tiny
from tests.models.test_adapters import saved
from tests.training.runs import LORA

TURN = 259
BEGAN = {"do_sample": True, "temperature": 0.6, "eos_token_id": tiny.EOS, "max_new_tokens": 7}
# What training makes of them.
TRAINED = {"eos_token_id": [tiny.EOS, TURN], "use_cache": False}


def exported(source: Path, base: Path, **options) -> Path:
    output = source.parent / "exported"
    output.mkdir()
    export_model(source, output, original=str(base), **options)
    return output


def generation(folder: Path) -> dict:
    return GenerationConfig.from_pretrained(folder).to_diff_dict()


@pytest.fixture
def base(tmp_path):
    """A student as it began, with its adapter beside it."""
    saved(tmp_path, LoraConfig(**LORA))
    GenerationConfig(**BEGAN).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def adapter(base):
    """Of a student that was trained to stop at two tokens."""
    student = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), base.parent / "adapter"
    )
    student.generation_config.eos_token_id = TRAINED["eos_token_id"]
    student.generation_config.use_cache = False
    save_generation(student, base.parent / "adapter")
    tiny.tokenizer().save_pretrained(base.parent / "adapter")
    return base.parent / "adapter"


def test_a_whole_student_keeps_its_end_tokens_and_nothing_else_of_the_training(tmp_path, base):
    trained = AutoModelForCausalLM.from_pretrained(base)
    trained.generation_config = GenerationConfig(**TRAINED, max_new_tokens=99)
    trained.save_pretrained(tmp_path / "trained")
    tiny.tokenizer().save_pretrained(tmp_path / "trained")
    found = generation(exported(tmp_path / "trained", base))
    assert found == generation(base) | {"eos_token_id": TRAINED["eos_token_id"]}


@pytest.mark.parametrize("merge", [True, False])
def test_so_does_one_that_is_an_adapter_merged_or_not(base, adapter, merge):
    output = exported(adapter, base, merge=merge)
    assert generation(output) == generation(base) | {"eos_token_id": TRAINED["eos_token_id"]}
    model, _ = load_model(str(output))
    assert model.generation_config.eos_token_id == TRAINED["eos_token_id"]


def test_an_adapter_stops_where_it_was_trained_to_when_it_is_loaded(adapter):
    model, _ = load_model(str(adapter))
    assert model.generation_config.eos_token_id == TRAINED["eos_token_id"]


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_without_settings_of_its_own_generates_as_its_base(base, merge):
    adapter = base.parent / "adapter"
    tiny.tokenizer().save_pretrained(adapter)
    assert load_model(str(adapter))[0].generation_config.eos_token_id == tiny.EOS
    output = exported(adapter, base, merge=merge)
    assert (output / "generation_config.json").is_file() == merge
    assert not merge or generation(output) == generation(base)


def test_nothing_is_written_beside_a_whole_student(tmp_path):
    save_generation(tiny.model(), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("target", [["lm_head"], ["embed_tokens"], ["embed_tokens", "lm_head"]])
def test_an_adapter_of_tied_weights_is_exported_as_what_it_computes(tmp_path, target):
    config = LoraConfig(r=4, target_modules=target)
    adapter = Path(saved(tmp_path, config, tie_word_embeddings=True))
    tiny.tokenizer().save_pretrained(adapter)
    base = tiny.model(seed=1, tie_word_embeddings=True)
    expected = probe(PeftModel.from_pretrained(base, adapter)).logits
    output = exported(adapter, tmp_path / "base")
    assert close(probe(AutoModelForCausalLM.from_pretrained(output)).logits, expected)


def test_an_adapter_that_would_compute_something_else_when_it_is_merged_is_refused(
    base, adapter, monkeypatch
):
    monkeypatch.setattr(adapters, "close", lambda *_: False)
    with pytest.raises(ValueError, match=r"other logits than beside it: export it with --no-merge"):
        exported(adapter, base)


def test_a_base_whose_settings_could_not_be_saved_is_exported_with_them(tmp_path, base, adapter):
    began = GenerationConfig(do_sample=False, eos_token_id=tiny.EOS)
    began.temperature = 0.6
    began.to_json_file(base / "generation_config.json")
    output = exported(adapter, base, merge=False)
    assert GenerationConfig.from_pretrained(output).eos_token_id == TRAINED["eos_token_id"]
