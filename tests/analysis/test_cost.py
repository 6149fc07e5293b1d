import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from peft import LoraConfig, get_peft_model

from oprd.analysis import cost
from oprd.analysis.choice import choose_objectives
from oprd.analysis.cost import SWEEPS, bytes_in_fresh_process, measure_cost, sweep_setups
from oprd.analysis.memory import FRESH_PROCESS
from oprd.analysis.setup import Models, Scene, Setup
from oprd.analysis.shapes import SHAPES, random_model
from oprd.analysis.updates import all_objectives
from oprd.models.reading import read
from tests import tiny
from tests.training.runs import LORA

SMALL = Setup(
    layers_count=2,
    vocab_size=300,
    prompt_length=3,
    response_length=8,
    teacher_prompt_length=20,
    window=2,
    device="cpu",
)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(SMALL, Models(SMALL))


@pytest.fixture(scope="module")
def measured() -> dict:
    return measure_cost([SMALL], list(all_objectives()), rounds=2, memory=False)


def gradients(scene: Scene, name: str) -> dict[str, torch.Tensor]:
    scene.student.zero_grad()
    all_objectives()[name].prepare(scene)()
    return {n: p.grad for n, p in scene.student.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", ["sampled", "reverse_kl"])
def test_what_has_no_top_16_is_measured_on_a_vocabulary_of_fewer_tokens(name):
    few = replace(SMALL, vocab_size=12)
    assert gradients(Scene(few, Models(few)), name)


def entry(result: dict, name: str, point: int = 0) -> dict:
    return next(e for e in result["points"][point]["objectives"] if e["name"] == name)


@pytest.mark.parametrize("name", all_objectives())
def test_every_update_leaves_finite_gradients_in_the_student_alone(scene, name):
    found = gradients(scene, name)
    assert found and all(g.isfinite().all() for g in found.values())
    assert any(g.any() for g in found.values())
    assert all(p.grad is None for p in scene.teacher.parameters())


@pytest.mark.parametrize(
    ("ours", "other"),
    [
        ("sampled", "naive_sampled"),
        ("topk_truncated", "naive_topk"),
        ("reverse_kl", "naive_reverse_kl"),
        ("reverse_kl", "trl"),
    ],
)
def test_an_objective_and_what_it_is_compared_with_have_one_gradient(scene, ours, other):
    expected = gradients(scene, other)
    for name, gradient in gradients(scene, ours).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)


def test_the_objectives_on_layers_and_on_a_window_supervise_less(scene):
    last = max(gradients(scene, "oprd"), key=lambda name: name.startswith("model.layers.0"))
    found = [gradients(scene, name)[last] for name in ("oprd", "oprd_layers", "oprd_window")]
    assert not torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_every_objective_is_measured_with_ratios_to_both_references(measured):
    assert [e["name"] for e in measured["points"][0]["objectives"]] == list(all_objectives())
    for found in measured["points"][0]["objectives"]:
        for key in ("seconds", "time_to_floor", "time_to_naive_topk"):
            spread = found[key]
            assert 0 < spread["min"] <= spread["median"] <= spread["max"] < math.inf
        assert len(found["each_round"]) == 2 and found["transient_bytes"] is None
    itself = {"median": 1, "min": 1, "max": 1}
    for floor in ("floor", "floor_prompt", "floor_reference"):
        assert entry(measured, floor)["time_to_floor"] == itself
    assert entry(measured, "naive_topk")["time_to_naive_topk"] == itself
    assert entry(measured, "oprd_window")["label"] == "OPRD, last 2"


def test_what_the_figures_depend_on_is_recorded_and_is_json(measured):
    assert measured["points"][0]["setup"] == asdict(SMALL)
    assert measured["rounds"] == 2 and measured["warm_up_rounds"] == 1
    assert measured["machine"]["threads"] == torch.get_num_threads()
    assert measured["machine"]["processor"] and measured["versions"]["torch"]
    assert json.loads(json.dumps(measured)) == measured


def test_a_ratio_is_taken_within_its_round(measured):
    floor, ours = (entry(measured, name) for name in ("floor", "oprd"))
    ratios = [a / b for a, b in zip(ours["each_round"], floor["each_round"], strict=True)]
    assert ours["time_to_floor"]["min"] == min(ratios)
    assert ours["time_to_floor"]["max"] == max(ratios)


@pytest.mark.parametrize("more", ["prompt", "reference"])
def test_an_update_with_more_to_read_is_beside_a_floor_that_reads_it(more):
    result = measure_cost([SMALL], [f"oprd_{more}"], rounds=1, memory=False)
    names = [found["name"] for found in result["points"][0]["objectives"]]
    assert names == ["floor", f"floor_{more}", f"oprd_{more}"]
    ours, floor = entry(result, f"oprd_{more}"), entry(result, f"floor_{more}")
    assert ours["time_to_floor"]["median"] == ours["each_round"][0] / floor["each_round"][0]


@pytest.fixture
def lengths(scene):
    """Tokens of each of the teacher's forward passes."""
    found = []

    def spy(module, args, kwargs):
        found.append(kwargs["input_ids"].shape[1])

    handle = scene.teacher.base_model.register_forward_pre_hook(spy, with_kwargs=True)
    yield found
    handle.remove()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("floor", [11]),
        ("oprd", [11]),
        ("floor_prompt", [28]),
        ("oprd_prompt", [28]),
        ("floor_reference", [11, 11]),
        ("oprd_reference", [11, 11]),
    ],
)
def test_an_update_reads_what_its_floor_does(scene, lengths, name, read):
    all_objectives()[name].prepare(scene)()
    assert lengths == read


def test_a_teachers_prompt_beyond_its_context_is_left_out(tmp_path):
    for name in ("student", "teacher"):
        tiny.model().save_pretrained(tmp_path / name)
    paths = {name: str(tmp_path / name) for name in ("student", "teacher")}
    setup = Setup(shape=None, prompt_length=3, response_length=8, device="cpu", **paths)
    said: list[str] = []
    measure_cost([setup], rounds=1, memory=False, notify=said.append)
    why = "1008 tokens do not fit into the teacher's context of 256"
    assert f"oprd_prompt is left out: {why}" in said
    assert f"floor_prompt is left out: {why}" in said
    with pytest.raises(ValueError, match=f"oprd_prompt cannot be measured: {why}"):
        measure_cost([setup], ["oprd_prompt"], rounds=1, memory=False)


def test_a_sweep_measures_its_points_side_by_side():
    setups = sweep_setups(SMALL, "vocab", [280, 560])
    result = measure_cost(setups, ["oprd"], sweep="vocab", rounds=1, memory=False)
    assert result["sweep"] == "vocab_size"
    assert [point["value"] for point in result["points"]] == [280, 560]
    first, last = (entry(result, "oprd", point)["each_round"][0] for point in (0, 1))
    assert entry(result, "oprd", 1)["time_to_first_point"]["median"] == last / first


@pytest.fixture
def nothing_measured(monkeypatch):
    def measured(*_):
        raise AssertionError("measured before everything was checked")

    for name in ("bytes_in_fresh_process", "_time_rounds"):
        monkeypatch.setattr(cost, name, measured)


@pytest.mark.usefixtures("nothing_measured")
@pytest.mark.parametrize("memory", [False, True])
def test_every_point_of_a_sweep_fits_both_contexts_before_anything_is_measured(memory, tmp_path):
    why = "prompt of 3 and a response of 40000 tokens do not fit into the student's context of 3276"
    setups = sweep_setups(SMALL, "length", [8, 40_000])
    with pytest.raises(
        ValueError, match=f"{why}.*: lower prompt_length or response_length, in a s"
    ):
        measure_cost(setups, ["oprd"], sweep="length", rounds=1, memory=memory)
    for name, context in (("student", 512), ("teacher", 256)):
        tiny.model(max_position_embeddings=context).save_pretrained(tmp_path / name)
    paths = {name: str(tmp_path / name) for name in ("student", "teacher")}
    given = Setup(shape=None, prompt_length=3, device="cpu", **paths)
    setups = sweep_setups(given, "length", [8, 300])
    with pytest.raises(ValueError, match="300 tokens do not fit into the teacher's context of 256"):
        measure_cost(setups, ["oprd"], sweep="length", rounds=1, memory=memory)


@pytest.mark.usefixtures("nothing_measured")
def test_what_one_point_of_a_sweep_rules_out_is_measured_on_none():
    setups = sweep_setups(SMALL, "length", [8, 32_750])
    why = "oprd_prompt cannot be measured: 32770 tokens do not fit into the teacher's context"
    with pytest.raises(ValueError, match=why):
        measure_cost(setups, ["oprd_prompt"], sweep="length", rounds=1, memory=False)
    said: list[str] = []
    names = choose_objectives(setups, None, said.append)
    assert "oprd" in names and not {"oprd_prompt", "floor_prompt"} & {*names}
    assert len(said) == 2


@pytest.mark.parametrize("sweep", SWEEPS)
def test_a_sweep_varies_one_field(sweep):
    setups = sweep_setups(replace(SMALL, window=None), sweep, [4, 5])
    field, _ = SWEEPS[sweep]
    assert [getattr(setup, field) for setup in setups] == [4, 5]
    assert replace(setups[0], **{field: getattr(SMALL, field)}).layers_count == 2


@pytest.mark.slow(minutes=0.5)
def test_memory_is_measured_in_fresh_processes_above_what_is_resident():
    # An update of this vocabulary holds full logits of 2 × 64 × 60,000 × 4 bytes = 29 MiB.
    wide = replace(SMALL, vocab_size=60_000, layers_count=1, response_length=64)
    result = measure_cost([wide], ["naive_topk"], rounds=0)
    found = entry(result, "naive_topk")
    assert 2 * 29 * 2**20 < found["transient_bytes"] < 40 * 29 * 2**20
    assert found["memory_to_floor"] > 1 and found["memory_to_naive_topk"] == 1
    assert found["seconds"] is None and found["time_to_floor"] is None


# Memory is looked at every two milliseconds: what is shorter may be missed.
GONE_AT_THE_END = """
import time, torch
from oprd.analysis.memory import transient_bytes

def run():
    for _ in range(20):
        held = torch.ones(2**24)
        time.sleep(0.01)
        del held

print(transient_bytes(run, torch.device("cpu")))
"""


def test_a_peak_is_seen_though_it_is_gone_at_the_end():
    # In a process of its own, as a measurement is: what earlier tests have freed stays resident.
    ran = subprocess.run(
        [sys.executable, "-c", GONE_AT_THE_END],
        env={**os.environ, **FRESH_PROCESS},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 0.8 * 2**26 < int(ran.stdout) < 3 * 2**26


def test_a_failure_in_the_fresh_process_is_an_error_that_names_the_objective():
    with pytest.raises(
        ChildProcessError, match=r"memory of oprd_layers failed .*layer 7 is outside"
    ):
        bytes_in_fresh_process(replace(SMALL, layers="7"), "oprd_layers")


def test_student_and_teacher_may_be_paths(tmp_path):
    for seed, name in enumerate(("student", "teacher")):
        tiny.model(seed=seed).save_pretrained(tmp_path / name)
    paths = {name: str(tmp_path / name) for name in ("student", "teacher")}
    setup = Setup(shape=None, prompt_length=3, response_length=8, device="cpu", **paths)
    scene = Scene(setup, Models(setup))
    assert gradients(scene, "oprd")
    with pytest.raises(ValueError, match=r"response of 397 tokens do not fit into .* of 256"):
        Scene(replace(setup, response_length=397), Models(setup))


@pytest.fixture
def adapters(tmp_path) -> Setup:
    """A student and a teacher that are adapters, each on a base of its own."""
    for seed, name in enumerate(("student", "teacher")):
        base = tiny.model(seed=seed)
        base.save_pretrained(tmp_path / f"{name}-base")
        wrapped = get_peft_model(base, LoraConfig(**LORA))
        wrapped.peft_config["default"].base_model_name_or_path = str(tmp_path / f"{name}-base")
        wrapped.save_pretrained(tmp_path / name)
    paths = {name: str(tmp_path / name) for name in ("student", "teacher")}
    return Setup(shape=None, prompt_length=3, response_length=8, device="cpu", **paths)


@pytest.mark.parametrize("name", ["floor", "oprd", "oprd_window", "topk", "naive_topk", "trl"])
def test_an_update_of_an_adapter_is_measured_on_its_weights_alone(adapters, name):
    assert name in choose_objectives([adapters], [name], print)
    found = gradients(Scene(adapters, Models(adapters)), name)
    assert found and all("lora_" in weight for weight in found)


def test_a_model_that_is_not_there_is_named_by_its_part(adapters, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "baseless").mkdir()
    (tmp_path / "baseless" / "adapter_config.json").write_text("{}")
    (tmp_path / "baseless" / "adapter_model.safetensors").write_bytes(b"weights")
    (tmp_path / "damaged" / "config.json").write_text("{}")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"weights")
    for part, path, why in (
        ("student", "empty", "student '.*empty' holds no config.json or adapter_config.json"),
        ("teacher", "damaged", "teacher '.*damaged' cannot be loaded: Unrecognized model"),
        ("student", "baseless", "student '.*baseless' cannot be loaded: name its base model, base"),
    ):
        with pytest.raises(OSError, match=why):
            measure_cost([replace(adapters, **{part: str(tmp_path / path)})], memory=False)
    shutil.rmtree(tmp_path / "teacher-base")
    with pytest.raises(FileNotFoundError, match=r"teacher's base '.*base': there is no such"):
        measure_cost([adapters], memory=False)


@pytest.fixture(scope="module")
def unequal(tmp_path_factory) -> Setup:
    """A student and a teacher of other depth, width and vocabulary."""
    folder = tmp_path_factory.mktemp("unequal")
    shape = {"num_hidden_layers": 4, "hidden_size": 48, "num_attention_heads": 6, "head_dim": 16}
    tiny.model("llama").save_pretrained(folder / "student")
    tiny.model("qwen3", vocab_size=280, **shape).save_pretrained(folder / "teacher")
    paths = {name: str(folder / name) for name in ("student", "teacher")}
    return Setup(shape=None, prompt_length=3, response_length=8, device="cpu", **paths)


def test_models_of_other_width_and_vocabulary_are_measured_by_what_needs_neither_alike(unequal):
    said: list[str] = []
    result = measure_cost([unequal], rounds=1, memory=False, notify=said.append)
    measured = {e["name"] for e in result["points"][0]["objectives"]}
    assert {"floor", "oprd_bridge", "topk", "reverse_kl"} <= measured
    left_out = {line.split()[0]: line for line in said if "is left out" in line}
    assert measured | left_out.keys() == all_objectives().keys() and not measured & left_out.keys()
    width = "oprd is left out: the student's width is 32 and the teacher's 48"
    vocabulary = "trl is left out: the student's vocabulary is 260 and the teacher's 280"
    assert (left_out["oprd"], left_out["trl"]) == (width, vocabulary)


def test_an_objective_that_the_models_rule_out_is_refused_where_it_is_asked_for(unequal):
    for name, what in (("oprd_window", "width is 32"), ("naive_topk", "vocabulary is 260")):
        with pytest.raises(ValueError, match=f"{name} cannot be measured: the student's {what}"):
            measure_cost([unequal], ["oprd_bridge", name], rounds=1, memory=False)


@pytest.fixture
def kept(monkeypatch):
    """Shapes of the teacher's rows, by layer, of each reading."""
    found = []

    def spy(*args, **kwargs):
        reading = read(*args, **kwargs)
        found.append({layer: tuple(rows.shape) for layer, rows in reading.states.items()})
        return reading

    monkeypatch.setattr("oprd.models.reader.read", spy)
    return found


def test_through_a_bridge_only_its_numbers_of_the_teachers_rows_are_kept(unequal, kept):
    found = Scene(unequal, Models(unequal))
    assert gradients(found, "oprd_bridge")
    # Three student layers meet teacher layers 1, 3 and 4, on 2 × 8 rows.
    assert kept == [dict.fromkeys((1, 3, 4), (16, 8))]


def test_a_bridge_of_narrow_models_is_measured_at_the_rank_that_they_have(tmp_path):
    for name, width in (("student", 8), ("teacher", 4)):
        narrow = tiny.model(hidden_size=width, num_attention_heads=2)
        narrow.save_pretrained(tmp_path / name)
    paths = {name: str(tmp_path / name) for name in ("student", "teacher")}
    setup = Setup(shape=None, prompt_length=3, response_length=8, device="cpu", **paths)
    assert gradients(Scene(setup, Models(setup)), "oprd_bridge")


def test_through_both_heads_as_many_numbers_are_kept_as_the_student_is_wide(kept):
    """A shape for each model, the teacher's the wider."""
    setup = replace(SMALL, teacher_shape="qwen3-0.6b")
    models = Models(setup)
    widths = [model.config.hidden_size for model in (models.student, models.teacher)]
    assert widths == [576, 1024] and models.teacher.config.vocab_size == 300
    assert gradients(Scene(setup, models), "oprd_heads")
    assert kept == [{2: (16, 576)}]
    with pytest.raises(ValueError, match="oprd cannot be measured: the student's width is 576 and"):
        measure_cost([setup], ["oprd"], rounds=1, memory=False)


@pytest.mark.parametrize("options", [{"teacher_shape": "gpt-5"}, {"shape": None}])
def test_a_shape_of_the_teacher_is_known_and_beside_one_of_the_student(options):
    paths = {"student": "a", "teacher": "b"} if "shape" in options else {}
    with pytest.raises(ValueError, match=r"teacher_shape (must be one of|is beside a shape)"):
        Setup(**{"teacher_shape": "qwen3-4b", **paths, **options})


@pytest.mark.slow(minutes=2)
def test_through_a_bridge_an_update_holds_no_more_than_its_floor():
    # With gradient checkpointing little else is held, so that whole rows of the teacher show.
    setup = Setup(
        layers_count=10,
        vocab_size=300,
        prompt_length=16,
        response_length=240,
        gradient_checkpointing=True,
        device="cpu",
    )
    names = ("floor", "oprd_bridge", "oprd")
    floor, bridged, whole_rows = (bytes_in_fresh_process(setup, name) for name in names)
    assert bridged <= 1.02 * floor
    assert whole_rows > 1.1 * floor


def test_gradient_checkpointing_changes_no_gradient(scene):
    setup = replace(SMALL, gradient_checkpointing=True)
    other = Scene(setup, Models(setup))
    assert other.student.is_gradient_checkpointing
    expected = gradients(scene, "oprd")
    for name, gradient in gradients(other, "oprd").items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_makes_a_model_of_its_width(shape):
    with torch.device("meta"):
        model = random_model(shape, layers_count=1)
    assert model.config.hidden_size == SHAPES[shape]["hidden_size"]
    assert model.get_output_embeddings().weight.shape[0] == SHAPES[shape]["vocab_size"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "gpt-5"}, "shape must be one of smollm2-135m, .*got 'gpt-5'"),
        ({"shape": None}, "a shape, or both a student and a teacher"),
        ({"student": "a", "teacher": "b"}, "a shape, or both a student and a teacher"),
        ({"shape": None, "student": "a"}, "a shape, or both a student and a teacher"),
        (
            {"shape": None, "student": "a", "teacher": "b", "vocab_size": 9},
            "layers_count and vocab_size change a shape",
        ),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"window": -1}, "window must be at least 1, got -1"),
        ({"window": 449}, "window must be within the response's 448 tokens, got 449"),
        ({"dtype": "int8"}, "dtype must be one of float32, .*got 'int8'"),
    ],
)
def test_a_setup_that_cannot_be_measured_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Setup(**options)


def test_unknown_names_and_no_measurement_at_all_are_refused():
    with pytest.raises(ValueError, match=r"objectives must be among floor, .*got kl"):
        measure_cost([SMALL], ["kl"])
    with pytest.raises(ValueError, match=r"rounds must be at least 1, .*got 0"):
        measure_cost([SMALL], ["floor"], rounds=0, memory=False)
    with pytest.raises(ValueError, match=r"rounds must be at least 1, .*got -1"):
        measure_cost([SMALL], ["floor"], rounds=-1)
    with pytest.raises(ValueError, match=r"sweep must be one of vocab, .*got 'width'"):
        sweep_setups(SMALL, "width")
