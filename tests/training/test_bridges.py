"""Training through a bridge: Eqs. 14 and 15, and which bridges a run accepts."""

import json
import pickle
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from torch.nn.functional import normalize

from oprd.calibration.bridge.fit import fit_bridge
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.models import FitModels
from oprd.core.bridge import Bridge
from oprd.core.bridge.space import BridgeSpace
from oprd.core.capture import capture_states
from oprd.core.states.comparison import LayerComparison
from oprd.training import bridges as obtain
from oprd.training.bridges import check_can_fit
from oprd.training.calibration import run_sampling
from tests import tiny
from tests.calibration.pairs import rollouts, student, teacher
from tests.training import runs
from tests.training.runs import largest_difference, trainer, weights
from tests.training.test_trainer import LORA, logged

POSITIONS = {"positions": "last_k", "position_k": 3}


def fit(folder, made_teacher=None, **options):
    """The file of a bridge from `student` to `teacher`."""
    models = FitModels(student(), made_teacher or teacher(), tiny.tokenizer(), tiny.tokenizer())
    settings = FitSettings(**{"rank": 4, **POSITIONS, **options})
    fitted = fit_bridge(
        models.student,
        models.teacher,
        rollouts(30),
        settings,
        provenance=models.provenance,
        progress=False,
    )
    folder.mkdir(exist_ok=True)
    return str(fitted.save(folder))


@pytest.fixture(scope="module")
def bridge(tmp_path_factory):
    return fit(tmp_path_factory.mktemp("bridge"))


def made_trainer(folder, **options):
    options = {"student": student(), "teacher": teacher(), **POSITIONS, **options}
    return trainer(folder, **options)


# --- the loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["none", "layer", "unit"])
def test_the_loss_and_its_gradient_are_equation_14(tmp_path, bridge, scale):
    trained, frozen, maps = student(), teacher(), Bridge.load(bridge)
    made = made_trainer(
        tmp_path,
        student=trained,
        bridge=bridge,
        scale=scale,
        prompts=runs.PROMPTS[:4],
        learning_rate=1.0,
        max_grad_norm=0.0,
    )
    before = weights(trained)
    made.train()
    reference = student()
    layer_losses = []
    for pair in maps.pairs:
        sequences, targets = [], []
        for prompt in runs.PROMPTS[:4]:
            ids = tiny.tokenizer()(prompt)["input_ids"]
            both = torch.tensor([ids + runs.scripted(ids)])
            rows = slice(-4, -1) if both.shape[1] - len(ids) >= 3 else slice(len(ids) - 1, -1)
            h_s = reference(both, output_hidden_states=True).hidden_states[pair.student][0, rows]
            with torch.no_grad():
                h_t = frozen(both, output_hidden_states=True).hidden_states[pair.teacher][0, rows]
            s, t = maps.project_student(pair.student, h_s), maps.project_teacher(pair.student, h_t)
            targets.append(t)
            if scale == "unit":
                s, t = normalize(s, dim=1), normalize(t, dim=1)
            distances = (s - t).square()
            sequences.append(
                (distances.sum(dim=1) if scale == "unit" else distances.mean(dim=1)).mean()
            )
        size = torch.cat(targets).square().mean() if scale == "layer" else 1
        layer_losses.append(torch.stack(sequences).mean() / size)
    expected = torch.stack(layer_losses).mean()
    expected.backward()
    assert made.state.log_history[0]["loss"] == pytest.approx(expected.item(), rel=1e-4)
    for name, parameter in reference.named_parameters():
        if parameter.grad is not None:
            step = before[name] - weights(trained)[name]
            torch.testing.assert_close(step, parameter.grad, atol=1e-5, rtol=1e-3)


def test_models_of_another_depth_width_and_heads_draw_nearer_in_the_bridges_space(tmp_path, bridge):
    made = made_trainer(tmp_path, bridge=bridge, max_steps=12, rollout=None, learning_rate=1.0)
    made.train()
    cosines = logged(tmp_path, "rep_cosine")
    assert cosines[-1] > cosines[0]
    assert logged(tmp_path, "loss")[-1] < logged(tmp_path, "loss")[0]
    assert [tuple(pair) for pair in made.pairs] == [(1, 1), (2, 3), (3, 4)]


def test_any_split_into_micro_batches_takes_the_same_step(tmp_path, bridge):
    def step(**options):
        trained = student().double()
        made_trainer(
            tmp_path, student=trained, teacher=teacher().double(), bridge=bridge, **options
        ).train()
        return weights(trained)

    whole = step(per_device_train_batch_size=8)
    split = step(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert largest_difference(whole, split) < 1e-6


def test_of_the_teachers_rows_only_their_projections_are_kept(tmp_path, bridge, monkeypatch):
    kept = []
    compare = LayerComparison.__call__

    def spy(self, layer, rows):
        kept.append((rows.shape[1], {r.shape[1] for r in self._teacher.values()}))
        return compare(self, layer, rows)

    monkeypatch.setattr(LayerComparison, "__call__", spy)
    made_trainer(tmp_path, bridge=bridge).train()
    assert kept and all(widths == (4, {4}) for widths in kept)


def test_one_teacher_layer_is_projected_for_each_student_layer_that_meets_it(tmp_path):
    deep = tiny.model("qwen3", seed=2, num_hidden_layers=1, hidden_size=48, num_attention_heads=6)
    path = fit(tmp_path, deep, basis="rrr")
    maps = Bridge.load(path)
    space = BridgeSpace(maps, maps.pairs, torch.device("cpu"), torch.float32)
    rows = torch.randn(5, 48)
    found = space.by_student_layer({1: space.teacher(1, rows)})
    assert sorted(found) == [1, 2, 3]
    for layer, projected in found.items():
        torch.testing.assert_close(projected, maps.project_teacher(layer, rows))
    # Under "rrr" each student layer has directions of its own.
    assert not torch.allclose(found[1], found[2])


def test_the_bridge_stays_as_it_was_and_out_of_the_students_checkpoint(tmp_path, bridge):
    made = made_trainer(tmp_path, bridge=bridge, max_steps=2)
    (space,) = made._teacher.spaces.values()
    before = {name: buffer.clone() for name, buffer in space.bridge.named_buffers()}
    made.train()
    for name, buffer in space.bridge.named_buffers():
        assert torch.equal(buffer, before[name]) and not buffer.requires_grad
    made.save_model(str(tmp_path / "saved"))
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    student().save_pretrained(tmp_path / "plain")
    assert saved.keys() == load_file(tmp_path / "plain" / "model.safetensors").keys()


def test_a_lora_student_trains_through_the_bridge_of_its_base(tmp_path, bridge):
    made = made_trainer(tmp_path, bridge=bridge, peft_config=LoraConfig(**LORA))
    made.train()
    changed = [n for n, p in made.model.named_parameters() if p.requires_grad and p.any()]
    assert any("lora_B" in name for name in changed)


def test_it_composes_with_an_output_loss(tmp_path, bridge):
    made_trainer(tmp_path, bridge=bridge, output_loss="reverse_kl").train()
    assert logged(tmp_path, "loss/representation")[0] > 0
    assert logged(tmp_path, "loss/output")[0] > 0


# --- which bridge ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student": "other"}, "fitted on another student"),
        ({"teacher": "other"}, "fitted on another teacher"),
        ({"teacher": "deeper"}, "not fitted on the layer pairs 2 with 3"),
        ({"teacher": "wider"}, "a student of width 32 and a teacher of 48, the run has 32 and 56"),
    ],
)
def test_a_bridge_of_another_run_is_refused(tmp_path, bridge, options, message):
    shape = {"num_hidden_layers": 4, "hidden_size": 48, "num_attention_heads": 6, "head_dim": 16}
    others = {
        ("student", "other"): tiny.model("llama", seed=7),
        ("teacher", "other"): tiny.model("qwen3", seed=7, **shape),
        ("teacher", "deeper"): tiny.model("qwen3", seed=2, **{**shape, "num_hidden_layers": 6}),
        ("teacher", "wider"): tiny.model("qwen3", seed=2, **{**shape, "hidden_size": 56}),
    }
    given = {role: others[role, kind] for role, kind in options.items()}
    if options == {"teacher": "deeper"}:
        message = "not fitted on the layer pairs 3 with 6"
    with pytest.raises(ValueError, match=message) as raised:
        made_trainer(tmp_path, bridge=bridge, **given)
    assert bridge in str(raised.value) and "oprd bridge fit" in str(raised.value)


def test_other_positions_are_reported_and_accepted(tmp_path, bridge, caplog):
    made_trainer(tmp_path, bridge=bridge, positions="all")
    assert "fitted on positions=last_k of 3, the run supervises positions=all." in caplog.text


def test_rollouts_drawn_otherwise_are_reported_and_accepted(tmp_path, caplog):
    made_trainer(tmp_path / "first", bridge="fit", bridge_rank=3, temperature=0.5)
    file = str(tmp_path / "first" / "bridge" / "bridge.safetensors")
    made_trainer(tmp_path, bridge=file, temperature=0.5)
    assert "rollouts drawn" not in caplog.text
    made_trainer(tmp_path, bridge=file, temperature=0.5, generation_kwargs={"top_k": 5})
    assert "drawn with top_k=0, the run draws its own with top_k=5; where that" in caplog.text


def test_a_missing_bridge_is_an_error_before_models_are_loaded(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no bridge at .*none\.safetensors: fit one with"):
        made_trainer(tmp_path, student="./nowhere", bridge=str(tmp_path / "none.safetensors"))


@pytest.mark.parametrize("name", ["bridge.safetensors", "bridge.pt"])
def test_a_pickle_is_refused_before_models_are_loaded_and_runs_nothing(tmp_path, name):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    (tmp_path / name).write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        made_trainer(tmp_path, student="./nowhere", bridge=str(tmp_path / name))


def test_models_of_another_width_without_a_bridge_are_told_how_to_fit_one(tmp_path):
    with pytest.raises(ValueError, match=r"32 wide and the teacher's 48.*oprd bridge fit"):
        made_trainer(tmp_path)


def test_unrelated_models_of_one_width_are_pointed_to_a_bridge(tmp_path, caplog):
    trainer(tmp_path, max_steps=2).train()
    cosine = logged(tmp_path, "rep_cosine")[0]
    assert cosine < 0.25
    assert caplog.text.count(f"have a cosine of {cosine:.3f} on the first batch") == 1
    assert "oprd bridge fit" in caplog.text


def test_unrelated_models_are_pointed_to_a_bridge_by_the_first_stage_that_compares_them(
    tmp_path, caplog
):
    output = {"representation_weight": 0, "output_loss": "reverse_kl"}
    trainer(tmp_path, max_steps=-1, stages=[{"steps": 1, **output}, {"steps": 2}]).train()
    cosines = logged(tmp_path, "rep_cosine")
    assert len(cosines) == 2 and cosines[0] < 0.25
    assert caplog.text.count("on the first batch") == 1
    assert f"have a cosine of {cosines[0]:.3f} on the first batch" in caplog.text


@pytest.mark.parametrize("kind", ["related", "bridged", "output"])
def test_others_are_not(tmp_path, bridge, caplog, kind):
    options = {
        "related": {"teacher": tiny.model(seed=1)},
        "bridged": {"teacher": teacher(), "bridge": bridge, **POSITIONS},
        "output": {"output_loss": "reverse_kl", "representation_weight": 0.0},
    }[kind]
    trainer(tmp_path, student=student(), **options).train()
    assert "on the first batch" not in caplog.text


# --- fitted before the first step -----------------------------------------------------------------


def test_a_bridge_is_fitted_on_the_first_prompts_kept_and_used_again(tmp_path, monkeypatch):
    options = {"bridge": "fit", "bridge_rank": 3, "bridge_prompts": 10}
    first = made_trainer(tmp_path, **options)
    assert {path.name for path in (tmp_path / "bridge").iterdir()} == {
        "bridge.safetensors",
        "report.json",
        "rollouts.jsonl",
    }
    lines = (tmp_path / "bridge" / "rollouts.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines[1:]] == runs.PROMPTS[:10]
    kept = Bridge.load(tmp_path / "bridge" / "bridge.safetensors")
    assert kept.rank == 3
    assert kept.provenance["positions"] == POSITIONS
    first.train()
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["bridges"]["fit"]["rank"] == 3
    monkeypatch.setattr(obtain, "fit_bridge", lambda *_, **__: pytest.fail("fitted again"))
    again = made_trainer(tmp_path, **options)
    torch.testing.assert_close(
        again._teacher.spaces["fit"].bridge.student_projection,
        kept.student_projection.float(),
    )


def chat_tokenizer():
    tokenizer = tiny.tokenizer().__class__(
        tokenizer_object=tiny.tokenizer().backend_tokenizer, eos_token="<eos>", pad_token="<pad>"
    )
    tokenizer.chat_template = "{{ messages[0].content }}{{ '?' if asking else '!' }}"
    return tokenizer


def test_a_bridge_is_fitted_on_rollouts_drawn_as_the_run_draws_its_own(tmp_path, caplog):
    shaping = {"temperature": 0.9, "top_p": 0.8, "top_k": 20, "min_p": 0.05}
    made_trainer(
        tmp_path,
        bridge="fit",
        bridge_rank=3,
        prompts=[[{"role": "user", "content": text}] for text in runs.PROMPTS],
        tokenizer=chat_tokenizer(),
        chat_template_kwargs={"asking": True},
        generation_kwargs={"repetition_penalty": 1.5, "no_repeat_ngram_size": 3},
        **shaping,
    )
    lines = (tmp_path / "bridge" / "rollouts.jsonl").read_text().splitlines()
    header, *found = map(json.loads, lines)
    expected = {**shaping, "repetition_penalty": 1.5, "max_new_tokens": 12}
    assert header["sampling"].items() >= expected.items()
    assert [rollout["text"] for rollout in found] == [f"{text}?" for text in runs.PROMPTS]
    assert caplog.text.count("without no_repeat_ngram_size of generation_kwargs") == 1


def test_what_the_sampler_is_not_told_shapes_nothing():
    args = runs.settings("unused", top_k=-1, min_p=None, generation_kwargs={"top_p": None})
    sampling = run_sampling(args, "bridge='fit'")
    assert (sampling.temperature, sampling.top_p) == (args.temperature, 1.0)
    assert sampling.facts().keys().isdisjoint({"top_k", "min_p", "repetition_penalty"})


def test_a_top_k_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="top_k must be a whole number of at least -1, got -5"):
        run_sampling(runs.settings("unused", top_k=-5), "bridge='fit'")


def test_fitting_leaves_the_runs_random_numbers_alone(tmp_path):
    def run(folder):
        trained = student()
        made_trainer(
            folder, student=trained, bridge="fit", bridge_rank=3, rollout=None, max_steps=2
        ).train()
        return weights(trained)

    first, again = run(tmp_path), run(tmp_path)
    assert largest_difference(first, again) == 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bridge_rank": 5}, r"fitted with bridge_rank=3, and the run asks for bridge_rank=5: "),
        ({"bridge_basis": "rrr"}, r"bridge_basis='pca', and the run asks for bridge_basis='rrr'"),
        ({"prompts": runs.PROMPTS[::-1]}, "prompts={'count': 16, .* asks for prompts={'count': 16"),
        ({"bridge_prompts": 10}, "prompts={'count': 16, .* asks for prompts={'count': 10"),
        ({"temperature": 0.5, "top_p": 0.9}, r"asks for temperature=0\.5, top_p=0\.9: choose"),
        ({"max_completion_length": 8}, "asks for max_completion_length=8"),
        ({"chat_template_kwargs": {"a": 1}}, "asks for chat_template_kwargs={'a': 1}"),
        ({"positions": "all"}, "asks for positions='all'"),
        ({"layers": "2"}, None),
        ({"teacher": tiny.model("llama", seed=9)}, "a teacher of 48, the run has 32 and 32"),
    ],
)
def test_the_kept_bridge_is_not_taken_for_another(tmp_path, changed, message):
    options = {"bridge": "fit", "bridge_rank": 3}
    made_trainer(tmp_path, **options)
    if message is None:
        made_trainer(tmp_path, **{**options, **changed})
        return
    with pytest.raises(ValueError, match=message) as raised:
        made_trainer(tmp_path, **{**options, **changed})
    assert str(tmp_path / "bridge") in str(raised.value)


def test_a_bridge_kept_by_an_earlier_version_is_used_again(tmp_path):
    options = {"bridge": "fit", "bridge_rank": 3}
    made_trainer(tmp_path, **options)
    file = tmp_path / "bridge" / "bridge.safetensors"
    kept = Bridge.load(file)
    assert {"rollouts", "prompts"} < kept.provenance.keys()
    kept.provenance = {name: kept.provenance[name] for name in ("student", "teacher", "positions")}
    kept.save(file)
    made_trainer(tmp_path, **options)
    rollouts_file = tmp_path / "bridge" / "rollouts.jsonl"
    header, *rows = rollouts_file.read_text().splitlines()
    old = {k: v for k, v in json.loads(header).items() if k != "chat_template_kwargs"}
    rollouts_file.write_text("\n".join([json.dumps(old), *rows]) + "\n")
    file.unlink()
    made_trainer(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bridge_rank": 33}, "rank 33 is above a width"),
        ({"bridge_rank": 30, "bridge_prompts": 4}, "rows to fit on determine at most"),
        ({"max_completion_length": None}, "needs max_completion_length"),
        ({"bridge_rank": 0}, "bridge_rank must be a whole number of at least 1"),
        ({"bridge_prompts": 1}, "bridge_prompts must be a whole number of at least 2"),
        ({"bridge_basis": "svd"}, "bridge_basis must be one of pca, rrr, fisher"),
    ],
)
def test_what_cannot_be_fitted_is_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        made_trainer(tmp_path, **{"bridge": "fit", **options})


@pytest.mark.parametrize("plugin", ["fsdp_plugin", "deepspeed_plugin"])
def test_sharded_models_are_not_fitted_on(bridge, plugin):
    accelerator = SimpleNamespace(state=SimpleNamespace(**{plugin: object()}))
    check_can_fit({bridge: Bridge.load(bridge)}, accelerator)
    with pytest.raises(ValueError, match="keep in pieces: fit one first with `oprd bridge fit`"):
        check_can_fit({"fit": None}, accelerator)
    check_can_fit({"fit": None}, SimpleNamespace(state=SimpleNamespace()))


# --- resuming -------------------------------------------------------------------------------------


def test_a_resumed_run_ends_with_the_weights_of_one_never_stopped(tmp_path):
    options = {
        "bridge": "fit",
        "bridge_rank": 3,
        "rollout": None,
        "max_steps": 4,
        "optim": "adamw_torch",
        "save_strategy": "steps",
        "save_steps": 2,
    }

    def run(folder, resume=None):
        trained = student()
        made_trainer(folder, student=trained, **options).train(resume_from_checkpoint=resume)
        return weights(trained)

    whole = run(tmp_path / "run")
    resumed = run(tmp_path / "run", str(tmp_path / "run" / "checkpoint-2"))
    assert largest_difference(whole, resumed) == 0


def test_a_run_does_not_go_on_through_another_bridge(tmp_path, bridge):
    options = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1}
    made_trainer(tmp_path, bridge=bridge, **options).train()
    other = fit(tmp_path / "other", rank=5)
    resume = str(tmp_path / "checkpoint-1")
    options["max_steps"] = 2
    with pytest.raises(ValueError, match="began with bridges="):
        made_trainer(tmp_path, bridge=other, **options).train(resume_from_checkpoint=resume)
    made_trainer(tmp_path, bridge=bridge, **options).train(resume_from_checkpoint=resume)


def test_captured_rows_of_the_teacher_are_what_the_transform_makes_of_them(bridge):
    maps, model = Bridge.load(bridge), teacher()
    space = BridgeSpace(maps, maps.pairs, torch.device("cpu"), torch.float32)
    ids = torch.randint(0, 256, (2, 7))
    rows = torch.ones(2, 7, dtype=torch.bool)
    with torch.no_grad(), capture_states(model, [1, 3, 4], rows, space.teacher) as states:
        model.base_model(ids)
    assert {layer: tuple(kept.shape) for layer, kept in states.items()} == {
        1: (14, 4),
        3: (14, 4),
        4: (14, 4),
    }
