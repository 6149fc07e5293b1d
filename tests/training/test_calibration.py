"""Layer pairs of a run: by name, one by one, or measured before its first step."""

import json
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel

from oprd import OPRDTrainer
from oprd.calibration import similarity
from oprd.calibration.models import FitModels
from oprd.calibration.rollouts import read_rollouts
from oprd.calibration.similarity import measure_similarity
from oprd.core.bridge import Bridge
from oprd.core.layers import PAIRINGS, Pairing, pair_layers, pairs_text
from oprd.runs.manifest import manifest_text, read_manifest
from oprd.training import calibration
from oprd.training.calibration import obtain_pairs
from tests import tiny
from tests.calibration.pairs import student, teacher
from tests.training import runs
from tests.training.runs import LORA, largest_difference, trainer, weights
from tests.training.test_bridges import fit

DEEP = {"num_hidden_layers": 5}


def deep():
    return tiny.model(seed=2, **DEEP)


def pairs(made):
    return [tuple(pair) for pair in made.pairs]


def record(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.fixture
def measurements(monkeypatch):
    """How often similarity was measured."""
    calls = []

    def counted(*args, **options):
        calls.append(1)
        return measure_similarity(*args, **options)

    monkeypatch.setattr(calibration, "measure_similarity", counted)
    return calls


# --- by name, and one by one ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [(1, 1), (2, 3), (3, 5)]),
        ({"layer_pairing": "from_end"}, [(1, 3), (2, 4), (3, 5)]),
        ({"layer_pairing": "from_end", "layers": "last:2"}, [(2, 4), (3, 5)]),
        ({"layer_pairing": "3:1,1:4"}, [(1, 4), (3, 1)]),
        ({"layer_pairing": "2:2", "layers": "even"}, [(2, 2)]),
    ],
)
def test_the_layers_that_meet_are_those_of_the_setting(tmp_path, measurements, options, expected):
    made = trainer(tmp_path, teacher=deep(), **options)
    assert pairs(made) == expected
    made.train()
    assert record(tmp_path)["layer_pairs"] == [list(pair) for pair in expected]
    assert "layer_similarity" not in record(tmp_path)
    assert not measurements and not (tmp_path / "layer_pairing").exists()


def test_the_loss_compares_the_layers_of_each_pair(tmp_path):
    model, frozen, prompts = tiny.model(seed=1), deep(), runs.PROMPTS[:4]
    made = trainer(
        tmp_path, student=model, teacher=frozen, layer_pairing="1:4,3:2", positions="all",
        scale="none", prompts=prompts,
    )  # fmt: skip
    expected = []
    with torch.no_grad():
        for prompt in prompts:
            ids = tiny.tokenizer()(prompt)["input_ids"]
            both = torch.tensor([ids + runs.scripted(ids)])
            rows = slice(len(ids) - 1, -1)
            ours, theirs = (
                m(both, output_hidden_states=True).hidden_states for m in (model, frozen)
            )
            expected += [(ours[s][0, rows] - theirs[t][0, rows]).square().mean()
                         for s, t in ((1, 4), (3, 2))]  # fmt: skip
    made.train()
    assert made.state.log_history[0]["loss"] == pytest.approx(float(torch.stack(expected).mean()))
    assert {"rep_cosine/layer_01", "rep_cosine/layer_03"} < made.state.log_history[0].keys()


def test_a_pairing_without_a_partner_is_refused(tmp_path):
    message = r"no partner for student layer 1: .* last of 5, and the teacher has 3"
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, student=deep(), teacher=tiny.model(seed=2), layer_pairing="from_end")
    with pytest.raises(ValueError, match="layer 4, and the student has 3 layers and the teacher 3"):
        trainer(tmp_path, layer_pairing="4:1")


# --- measured -------------------------------------------------------------------------------------


def test_similar_layers_are_found_on_rollouts_drawn_as_the_run_draws_its_own(tmp_path, capsys):
    model, frozen = tiny.model(seed=1), deep()
    made = trainer(
        tmp_path, student=model, teacher=frozen, layer_pairing="similarity", position_k=3,
        temperature=0.9, generation_kwargs={"top_k": 20}, disable_tqdm=False,
    )  # fmt: skip
    header, found = read_rollouts(tmp_path / "layer_pairing" / "rollouts.jsonl")
    assert [rollout.text for rollout in found] == runs.PROMPTS
    assert header["sampling"].items() >= {"temperature": 0.9, "top_k": 20}.items()
    alike = measure_similarity(tiny.model(seed=1), deep(), found, "last_k", 3, progress=False)
    assert tuple(made.pairs) == pair_layers("all", 3, 5, "similarity", lambda: alike)
    shown = capsys.readouterr().out
    line = ", ".join(f"{s}:{t} ({alike[s - 1, t - 1]:.2f})" for s, t in made.pairs)
    assert f"Layer pairs, student:teacher (CKA): {line}" in " ".join(shown.split())
    made.train()
    kept = record(tmp_path)
    assert kept["layer_pairs"] == [list(pair) for pair in made.pairs]
    assert kept["layer_similarity"] == alike.tolist()
    assert kept["layer_similarity_on"]["prompts"]["count"] == len(runs.PROMPTS)
    assert kept["layer_similarity_on"]["rollouts"]["top_k"] == 20


def test_a_teacher_with_layers_put_in_front_is_met_where_its_layers_are_the_students(tmp_path):
    """The student's own layers, two blocks further up: similarity finds what depth does not."""
    model, frozen = tiny.model(seed=1), deep()
    layers = frozen.base_model.layers
    with torch.no_grad():
        for block in layers[:2]:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        for own, block in zip(model.base_model.layers, layers[2:], strict=True):
            block.load_state_dict(own.state_dict())
        frozen.base_model.norm.load_state_dict(model.base_model.norm.state_dict())
        frozen.get_input_embeddings().load_state_dict(model.get_input_embeddings().state_dict())
    options = {"student": model, "teacher": frozen, "layer_pairing": "similarity"}
    made = trainer(tmp_path, **options)
    assert pairs(made) == [(1, 3), (2, 4), (3, 5)]
    made.train()
    assert made.state.log_history[0]["loss"] == pytest.approx(0, abs=1e-12)
    assert [record(tmp_path)["layer_similarity"][s - 1][t - 1] for s, t in made.pairs] == [1, 1, 1]


def test_only_the_chosen_layers_are_paired(tmp_path):
    made = trainer(tmp_path, teacher=deep(), layer_pairing="similarity", layers="last:2")
    assert [pair.student for pair in made.pairs] == [2, 3]
    made.train()
    # What could be said of the others is kept.
    assert len(record(tmp_path)["layer_similarity"]) == 3


def test_a_teacher_on_the_students_own_base_is_read_with_its_adapter(tmp_path, places):
    base, adapter = places
    options = {"layer_pairing": "similarity", "teacher": adapter, "student": base}
    made = trainer(tmp_path, **options, peft_config=LoraConfig(**LORA))
    assert made.shares_base
    made.train()
    merged = PeftModel.from_pretrained(tiny.model(seed=1), adapter).merge_and_unload()
    _, found = read_rollouts(tmp_path / "layer_pairing" / "rollouts.jsonl")
    models = tiny.model(seed=1), merged
    expected = measure_similarity(*models, found, "last_k", 2000, progress=False)
    recorded = torch.tensor(record(tmp_path)["layer_similarity"], dtype=torch.float64)
    torch.testing.assert_close(recorded, expected, atol=2e-4, rtol=0)
    assert recorded.diagonal().max() < 0.99


def test_measuring_leaves_the_runs_random_numbers_alone(tmp_path):
    def run(folder, **options):
        model = tiny.model(seed=1)
        trainer(folder, student=model, rollout=None, max_steps=2, **options).train()
        return weights(model)

    measured = run(tmp_path / "measured", layer_pairing="similarity")
    made = record(tmp_path / "measured")["layer_pairs"]
    named = run(tmp_path / "named", layer_pairing=",".join(f"{s}:{t}" for s, t in made))
    assert largest_difference(measured, named) == 0


# --- with a bridge --------------------------------------------------------------------------------


def test_a_bridge_is_fitted_on_the_measured_pairs_and_the_same_rollouts(tmp_path, monkeypatch):
    written = []
    write = FitModels.write_rollouts

    def watched(self, prompts, sampling, folder, **options):
        before = (folder / "rollouts.jsonl").exists()
        written.append((len(prompts), folder, before))
        return write(self, prompts, sampling, folder, **options)

    monkeypatch.setattr(FitModels, "write_rollouts", watched)
    monkeypatch.setattr(calibration, "MAX_ROLLOUTS", 6)
    monkeypatch.setattr(similarity, "MAX_ROLLOUTS", 6)
    made = trainer(
        tmp_path, student=student(), teacher=teacher(), bridge="fit", bridge_rank=3,
        bridge_prompts=12, layer_pairing="similarity",
    )  # fmt: skip
    folder = tmp_path / "bridge"
    assert written == [(12, folder, False), (12, folder, True)]
    assert not (tmp_path / "layer_pairing").exists()
    bridge = Bridge.load(folder / "bridge.safetensors")
    assert bridge.pairs == tuple(made.pairs)
    _, found = read_rollouts(folder / "rollouts.jsonl")
    alike = measure_similarity(student(), teacher(), found, "last_k", 2000, progress=False)
    assert bridge.pairs == pair_layers("all", 3, 4, "similarity", lambda: alike)
    made.train()
    assert record(tmp_path)["layer_similarity_on"]["prompts"]["count"] == 6


def test_a_bridge_of_other_pairs_is_refused_with_its_own(tmp_path):
    path = fit(tmp_path / "fitted", layer_pairing="from_end")
    options = {"student": student(), "teacher": teacher(), "bridge": path, "positions": "last_k",
               "position_k": 3}  # fmt: skip
    message = (
        "not fitted on the layer pairs 1 with 1 .* set layer_pairing='1:2,2:3,3:4', or fit one"
    )
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **options)
    made = trainer(tmp_path, **options, layer_pairing=pairs_text(Bridge.load(path).pairs))
    assert pairs(made) == [(1, 2), (2, 3), (3, 4)]


# --- resuming -------------------------------------------------------------------------------------


def resumable(folder, **options):
    return {
        "folder": folder,
        "teacher": deep(),
        "rollout": None,
        "max_steps": 4,
        "optim": "adamw_torch",
        "save_strategy": "steps",
        "save_steps": 2,
        "layer_pairing": "similarity",
        **options,
    }


def test_a_resumed_run_keeps_its_pairs_and_ends_with_the_weights_of_one_never_stopped(
    tmp_path, measurements
):
    def run(resume=None):
        model = tiny.model(seed=1)
        trainer(student=model, **resumable(tmp_path)).train(resume_from_checkpoint=resume)
        return weights(model)

    whole = run()
    before = record(tmp_path)
    resumed = run(str(tmp_path / "checkpoint-2"))
    assert largest_difference(whole, resumed) == 0
    assert len(measurements) == 1
    after = record(tmp_path)
    for name in ("layer_pairs", "layer_similarity", "layer_similarity_on"):
        assert after[name] == before[name]


def test_a_resumed_run_keeps_its_pairs_where_it_would_measure_otherwise(tmp_path, measurements):
    trainer(**resumable(tmp_path)).train()
    # As if another machine had measured, and with rollouts of another temperature.
    for checkpoint in tmp_path.glob("checkpoint-*"):
        saved = read_manifest(checkpoint)
        for facts in (saved["facts"], saved["facts"]["identity"]):
            facts["layer_pairs"] = [[1, 2], [2, 2], [3, 4]]
        (checkpoint / "manifest.json").write_text(manifest_text(saved))
    # Whatever has begun in the folder since then.
    (tmp_path / "run.json").write_text("{}")
    resume = str(tmp_path / "checkpoint-2")
    options = resumable(tmp_path, temperature=0.8, resume_from_checkpoint="auto")
    made = trainer(**options)
    assert pairs(made) == [(1, 2), (2, 2), (3, 4)]
    made.train(resume_from_checkpoint=resume)
    assert len(measurements) == 1
    # A new run there is another matter: it measures, and finds the rollouts of the first.
    with pytest.raises(ValueError, match="was written with sampling="):
        trainer(**resumable(tmp_path, temperature=0.8))


def test_a_resumed_run_without_a_record_measures(tmp_path, measurements):
    trainer(**resumable(tmp_path)).train()
    (tmp_path / "run.json").unlink()
    trainer(**resumable(tmp_path)).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(measurements) == 2


def test_another_pairing_that_measures_does_not_take_what_the_first_one_measured(
    tmp_path, measurements, monkeypatch
):
    def farthest(layers, num_student, num_teacher, measure):
        return PAIRINGS["similarity"].pair(layers, num_student, num_teacher, lambda: -measure())

    monkeypatch.setitem(PAIRINGS, "farthest", Pairing(farthest, measures=True))
    first = trainer(**resumable(tmp_path))
    first.train()
    second = trainer(**resumable(tmp_path, layer_pairing="farthest"))
    assert len(measurements) == 2
    assert pairs(second) != pairs(first)


def test_too_few_rows_are_refused_under_the_pairing_that_asked_for_them(tmp_path, monkeypatch):
    monkeypatch.setitem(PAIRINGS, "nearest", PAIRINGS["similarity"])
    with pytest.raises(ValueError, match="layer_pairing='nearest' has 2 supervised positions of 2"):
        trainer(**resumable(tmp_path, layer_pairing="nearest", prompts=runs.PROMPTS[:2],
                            positions="last", per_device_train_batch_size=2))  # fmt: skip


def test_a_run_does_not_go_on_with_other_layers(tmp_path):
    options = resumable(tmp_path, layer_pairing="proportional")
    trainer(**options).train()
    with pytest.raises(ValueError, match="began with layer_pairs="):
        trainer(**options, layers="last:2").train(str(tmp_path / "checkpoint-2"))


def test_a_run_does_not_go_on_with_other_pairs(tmp_path):
    options = resumable(tmp_path, layer_pairing="from_end")
    trainer(**options).train()
    with pytest.raises(ValueError, match="began with layer_pairs="):
        trainer(**{**options, "layer_pairing": "proportional"}).train(
            resume_from_checkpoint=str(tmp_path / "checkpoint-2")
        )


# --- what cannot be measured ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "there is no train_dataset: pass one, or name pairs"),
        (Dataset.from_dict({"prompt": ["1"]}), "2 at least, got 1"),
        (Dataset.from_dict({"prompt": ["1"] * 9}).to_iterable_dataset(), "these are streamed"),
    ],
)
def test_prompts_that_cannot_be_measured_on_are_refused_before_models_are_loaded(
    tmp_path, given, message
):
    args = runs.settings(tmp_path, layer_pairing="similarity")
    with pytest.raises(ValueError, match=message):
        OPRDTrainer("./nowhere", "./nowhere", args, train_dataset=given)


def test_rollouts_without_a_limit_are_refused_before_models_are_loaded(tmp_path):
    args = runs.settings(tmp_path, layer_pairing="similarity", max_completion_length=None)
    given = Dataset.from_dict({"prompt": runs.PROMPTS})
    with pytest.raises(ValueError, match="need max_completion_length: set it, or name pairs"):
        OPRDTrainer("./nowhere", "./nowhere", args, train_dataset=given)


def test_too_few_rows_are_refused(tmp_path):
    options = {"layer_pairing": "similarity", "positions": "last", "per_device_train_batch_size": 1}
    with pytest.raises(ValueError, match="has 2 supervised positions of 2 rollouts to go by"):
        trainer(tmp_path, prompts=runs.PROMPTS[:2], **options)


@pytest.mark.parametrize("plugin", ["fsdp_plugin", "deepspeed_plugin"])
def test_sharded_models_are_not_measured_on(plugin):
    models = FitModels(tiny.model(seed=1), deep(), tiny.tokenizer(), None)
    accelerator = SimpleNamespace(state=SimpleNamespace(**{plugin: object()}))

    def obtained(pairing):
        args = runs.settings("unused", layer_pairing=pairing)
        return obtain_pairs(models, args, None, accelerator, fits=False)  # pyright: ignore

    with pytest.raises(ValueError, match=r"keep in pieces: find the pairs first, .*'1:1,2:3'\."):
        obtained("similarity")
    assert obtained("1:1").pairs == ((1, 1),)
