import json
import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import LoraConfig, get_peft_model

from oprd.evaluation.evaluate import evaluate
from oprd.evaluation.tasks import arithmetic
from oprd.models import load
from oprd.models.load import (
    check_named,
    find_model,
    fingerprint,
    load_model,
    load_tokenizer,
    open_engine,
    resolve_model,
)
from oprd.models.sampling import Sampling
from oprd.runs.checkpoints import find_checkpoint
from oprd.runs.manifest import begin_saving, write_manifest
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny.model().save_pretrained(folder)
    tiny.tokenizer().save_pretrained(folder)
    return folder


def checkpoint(run: Path, step: int, *, complete: bool = True) -> Path:
    folder = run / f"checkpoint-{step}"
    begin_saving(folder)
    (folder / "config.json").write_text("{}")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    if complete:
        write_manifest(folder, {"step": step})
    return folder


def test_a_run_folder_stands_for_its_newest_complete_checkpoint(tmp_path: Path) -> None:
    for step in (5, 40):
        newest = checkpoint(tmp_path, step)
    cut_off = checkpoint(tmp_path, 100, complete=False)
    (tmp_path / "checkpoint-v2").mkdir()
    assert resolve_model(str(tmp_path)) == str(newest) == find_checkpoint(tmp_path, "auto")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert resolve_model(str(tmp_path)) == str(tmp_path)
    with pytest.raises(ValueError, match=r"'.*checkpoint-100' is damaged: its save was cut off"):
        resolve_model(str(cut_off))


def test_a_checkpoint_whose_bytes_have_changed_is_not_evaluated(tmp_path: Path) -> None:
    older, newest = checkpoint(tmp_path, 5), checkpoint(tmp_path, 40)
    (newest / "model.safetensors").write_bytes(b"weighty")
    with pytest.raises(ValueError, match=r"its model\.safetensors has been altered"):
        resolve_model(str(newest))
    assert resolve_model(str(tmp_path)) == str(older)
    # What is only looked up is not read.
    assert resolve_model(str(tmp_path), contents=False) == str(newest)


def test_a_final_model_whose_save_was_cut_off_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    newest = checkpoint(tmp_path, 5)
    begin_saving(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"x")
    assert resolve_model(str(tmp_path)) == str(newest)
    assert "is passed over for checkpoint-5: its save was cut off" in caplog.text
    write_manifest(tmp_path, {}, ["config.json", "model.safetensors"])
    assert resolve_model(str(tmp_path)) == str(tmp_path)


def test_what_holds_no_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        resolve_model(str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        resolve_model("./nowhere")
    assert resolve_model("owner/name") == "owner/name"


def test_a_fingerprint_tells_weights_apart() -> None:
    model = tiny.model()
    before = fingerprint(model)
    assert fingerprint(tiny.model()) == before
    with torch.no_grad():
        model.lm_head.weight.mul_(1.001)
    assert fingerprint(model) != before


def test_a_fingerprint_is_that_of_the_model_not_of_its_precision_or_untrained_adapter() -> None:
    expected = fingerprint(tiny.model())
    assert fingerprint(tiny.model().bfloat16()) == expected
    adapted = get_peft_model(tiny.model(), LoraConfig(target_modules=["q_proj"]))
    assert fingerprint(adapted) == expected
    with torch.no_grad():
        next(p for n, p in adapted.named_parameters() if "lora_B" in n).add_(0.1)
    assert fingerprint(adapted) != expected


def test_a_folder_loads_with_its_tokenizer(folder: Path) -> None:
    model, tokenizer = load_model(str(folder))
    assert fingerprint(model) == fingerprint(tiny.model())
    assert tokenizer.eos_token == "<eos>"


def test_an_adapter_loads_on_the_base_that_is_given(folder: Path, tmp_path: Path) -> None:
    adapted = get_peft_model(
        tiny.model(), LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    )
    adapted.save_pretrained(tmp_path)
    engine, identity = open_engine(str(tmp_path), base_model=str(folder))
    assert identity["model"] == str(tmp_path)
    assert identity["weights"] != fingerprint(tiny.model())
    found = evaluate(
        engine, arithmetic.load(count=2), Sampling(2, max_new_tokens=3), identity, progress=False
    )
    assert len(found.records) == 4


def test_an_unknown_engine_is_an_error(folder: Path) -> None:
    with pytest.raises(ValueError, match="got 'sglang'"):
        open_engine(str(folder), engine="sglang")


class FakeLLM:
    """vLLM's interface, as far as it is used."""

    drop = 0
    reason = "stop"
    order = 1
    length = 1

    def __init__(
        self, model: str, revision: str | None, dtype: str, enable_chunked_prefill: bool = True
    ) -> None:
        # On a CPU a seeded request that is read in parts ends the engine.
        assert enable_chunked_prefill == torch.accelerator.is_available()
        config = SimpleNamespace(max_model_len=256, dtype=getattr(torch, dtype))
        self.llm_engine = SimpleNamespace(model_config=config)

    def get_tokenizer(self):
        return tiny.tokenizer()

    def generate(self, prompts: list, params: list, use_tqdm: bool) -> list:
        return [
            SimpleNamespace(
                prompt_token_ids=prompt["prompt_token_ids"],
                outputs=[
                    SimpleNamespace(
                        token_ids=(param.seed % 200,) * self.length, finish_reason=self.reason
                    )
                ],
            )
            for prompt, param in zip(prompts, params, strict=True)
        ][self.drop :][:: self.order]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> type[FakeLLM]:
    module = types.ModuleType("vllm")
    fake = type("FakeLLM", (FakeLLM,), {})
    module.LLM, module.SamplingParams = fake, SimpleNamespace  # pyright: ignore
    monkeypatch.setitem(sys.modules, "vllm", module)
    return fake


def test_vllm_gets_the_seed_of_every_pair(vllm: type[FakeLLM], folder: Path) -> None:
    engine, identity = open_engine(str(folder), engine="vllm")
    task, sampling = arithmetic.load(count=2), Sampling(2, max_new_tokens=3)
    found = evaluate(engine, task, sampling, identity, progress=False)
    assert [r.ids[0] for r in found.records] == [
        sampling.pair_seed("arithmetic", r.problem, r.sample) % 200 for r in found.records
    ]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"drop": 1}, "4 samples and returned 3"),
        ({"reason": "abort"}, "gave up problem"),
        ({"order": -1}, "in another order at"),
        ({"length": 4}, "at most 3 tokens and returned 4 for problem"),
    ],
)
def test_vllm_that_leaves_responses_out_is_an_error(
    vllm: type[FakeLLM], folder: Path, fault: dict, message: str
) -> None:
    for name, value in fault.items():
        setattr(vllm, name, value)
    engine, identity = open_engine(str(folder), engine="vllm")
    with pytest.raises(ValueError, match=message):
        evaluate(
            engine,
            arithmetic.load(count=2),
            Sampling(2, max_new_tokens=3),
            identity,
            progress=False,
        )


@pytest.mark.parametrize(
    ("own", "asked", "used"),
    [
        (torch.float32, "auto", "float32"),
        (torch.bfloat16, "auto", "bfloat16"),
        (torch.float32, "bfloat16", "bfloat16"),
    ],
)
def test_vllm_reads_a_checkpoint_in_its_own_precision(
    vllm: type[FakeLLM], tmp_path: Path, own: torch.dtype, asked: str, used: str
) -> None:
    tiny.model().to(own).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    engine, _ = open_engine(str(tmp_path), engine="vllm", dtype=asked)
    assert engine.dtype == used


def test_vllm_missing_is_one_sentence(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=r"pip install 'oprd\[vllm\]'"):
        open_engine(str(folder), engine="vllm")


def test_code_of_a_model_repository_is_refused_without_a_question(tmp_path: Path) -> None:
    config = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "own.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(OSError, match=r"cannot be loaded: [\s\S]*custom code"):
        load_model(str(tmp_path))


def test_a_hub_that_does_not_answer_is_said_to_be_so_and_asked_once(monkeypatch, tmp_path):
    asked = []

    def unreachable(name, config, *, revision=None, local_files_only=False):
        asked.append(local_files_only)
        raise OSError("We couldn't connect") from LocalEntryNotFoundError("no answer")

    monkeypatch.setattr(load, "cached_file", unreachable)
    monkeypatch.setattr(load, "only_cached", lambda name: False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student").mkdir()
    with pytest.raises(FileNotFoundError) as raised:
        find_model("studnet", "student")
    assert asked == [False, True]
    assert str(raised.value) == (
        "student 'studnet': there is no such file or folder here (did you mean 'student'?), and it "
        "cannot be had from the Hugging Face hub (We couldn't connect)."
    )


def test_a_name_is_looked_for_at_its_revision_and_left_where_options_say_it_stands(
    monkeypatch, tmp_path
):
    asked, warned = [], []
    monkeypatch.setattr(load, "ask_hub", lambda *named: asked.append(named))
    monkeypatch.setattr(load, "warn_of_waiting", warned.append)
    check_named("owner/model", "student", {"revision": "v1"})
    check_named("owner/model", "student", {"subfolder": "inner"})
    # What a folder holds is for whoever loads it.
    check_named(str(tmp_path), "student", {})
    assert asked == [("owner/model", "student", "v1")]
    assert warned == ["owner/model", "owner/model"]
    with pytest.raises(FileNotFoundError, match="student '/nowhere': there is no such"):
        check_named("/nowhere", "student", {})


def test_a_model_in_the_cache_is_found_without_the_hub(monkeypatch):
    def cached(name, config, *, revision=None, local_files_only=False):
        if config == "config.json" and local_files_only:
            return "/cache/config.json"
        raise OSError("We couldn't connect") from LocalEntryNotFoundError("no answer")

    monkeypatch.setattr(load, "cached_file", cached)
    monkeypatch.setattr(load, "only_cached", lambda name: False)
    assert find_model("owner/model", "teacher") == "owner/model"


def test_an_adapter_whose_base_is_on_a_hub_that_is_away_is_refused_at_once(monkeypatch, tmp_path):
    """The client's own tries would take half a minute for each file."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/base"}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"weights")
    began = time.monotonic()
    with pytest.raises(FileNotFoundError, match=r"student's base 'owner/base'.*couldn't connect"):
        find_model(str(tmp_path), "student")
    with pytest.raises(OSError, match=r"on its base 'owner/base': [\s\S]*couldn't connect"):
        load_model(str(tmp_path))
    with pytest.raises(OSError, match=r"cannot be loaded: [\s\S]*couldn't connect"):
        load_tokenizer(str(tmp_path))
    assert time.monotonic() - began < 10
