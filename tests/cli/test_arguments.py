import json
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from oprd.cli.arguments import TrainParser, parse
from oprd.models import trial
from oprd.settings.run import OPRDConfig


@pytest.fixture
def config(tmp_path: Path):
    """Writes a YAML file next to an output directory and gives the arguments that name it."""

    def write(text: str) -> list[str]:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return ["--config", str(path), "--output_dir", str(tmp_path)]

    return write


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(config):
    arguments = config("learning_rate: 1e-4\nmax_steps: 7\nbad_rows: skip\nlora_r: 4\n")
    data, training, models, _ = parse([*arguments, "--max-steps", "9", "--layers=last"])
    assert (training.learning_rate, training.max_steps, training.layers) == (1e-4, 9, "last")
    assert (data.bad_rows, models.lora_r, training.positions) == ("skip", 4, "last_k")


def test_config_may_be_joined_with_an_equals_sign(config):
    _, path, *rest = config("max_steps: 7")
    assert parse([f"--config={path}", *rest])[1].max_steps == 7


def test_values_of_every_kind_keep_their_type(config):
    text = """
        layers: [1, 3]
        layer_pairing: 1:2,3:4
        max_completion_length: null
        report_to: [none]
        generation_kwargs: {min_new_tokens: 2}
        lora_target_modules: [q_proj, v_proj]
        gradient_checkpointing: no
        save_strategy: "no"
        logging_steps: 5
    """
    _, training, models, _ = parse(config("\n".join(map(str.strip, text.splitlines()))))
    assert training.layer_spec == (1, 3)
    assert training.layer_pairing == "1:2,3:4"
    assert training.max_completion_length is None
    assert training.generation_kwargs == {"min_new_tokens": 2}
    assert training.gradient_checkpointing is False
    assert training.save_strategy == "no"
    assert models.lora_target_modules == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("learning_rte", "learning_rate"),
        ("layer", "layers"),
        ("model", "model_name_or_path"),
        ("dataset", "dataset_name"),
        ("teacher_model", "teacher_model_name_or_path"),
    ],
)
def test_an_unknown_field_names_the_closest_one(config, name: str, closest: str):
    with pytest.raises(ValueError, match=f"run.yaml': unknown field '{name}': .* {closest}\\?"):
        parse(config(f"{name}: 1"))
    for arguments in ([f"--{name}", "1"], [f"--{name}=1"]):
        with pytest.raises(ValueError, match=f"unknown field '--{name}': .* --{closest}\\?"):
            parse(arguments)


def test_dashes_are_for_the_command_line(config):
    assert parse(["--position-k", "3"])[1].position_k == 3
    with pytest.raises(ValueError, match="unknown field 'position-k': did you mean position_k"):
        parse(config("position-k: 3"))


def test_a_field_like_no_other_points_to_the_help(config):
    with pytest.raises(ValueError, match="unknown field 'zzzzzz': oprd train --help lists all"):
        parse(config("zzzzzz: 1"))


def test_an_argument_without_dashes_is_refused_with_the_way_out(config):
    with pytest.raises(ValueError, match="'stray' belongs to no field: a field is given as --FIEL"):
        parse(["--max_steps", "1", "stray"])
    with pytest.raises(ValueError, match=r"'run\.yaml' .*: did you mean --config run\.yaml\?"):
        parse(["run.yaml", "--max_steps", "1"])
    with pytest.raises(ValueError, match=r"'more\.yml' belongs to no field: a field"):
        parse([*config("max_steps: 1"), "more.yml"])


def test_a_file_is_no_value_of_the_flag_before_it(config):
    assert parse(["--layers", "1", "2", *config("max_steps: 1")]).training.layers == "1,2"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("learning_rate: fast", "learning_rate.*: must be a number or auto, got 'fast'"),
        ("learning_rate: [1]", r"learning_rate must be a number or auto, got \[1\]"),
        ("learning_rate: true", "learning_rate must be a number or auto, got True"),
        ("learning_rate: null", "learning_rate must be a number or auto, got None"),
        ("learning_rate: autos", "must be a number or auto, got 'autos'"),
        ("learning_rate: .nan", "learning_rate must be above 0.*got nan"),
        ("learning_rate: 1e30", r"learning_rate must be above 0 and below 100, got 1e\+30"),
        ("learning_rate: -1", "learning_rate must be above 0"),
        ("temperature: 0", "temperature must be above 0"),
        ("max_steps: 0", "max_steps must be at least 1"),
        ("max_steps: 1.5", r"max_steps must be a whole number, got 1\.5"),
        ("max_steps: '1.5'", "max_steps.*invalid int value: '1.5'"),
        ("max_completion_length: [8]", "max_completion_length must be a whole number or null"),
        ("bf16: 2", "bf16 must be true or false or null, got 2"),
        ("prefix_gradients: maybe", "prefix_gradients.*Truthy value expected"),
        ("output_dir: 5", "output_dir must be text or null, got 5"),
        ("run_name: {a: 1}", r"run_name must be text or null, got \{'a': 1\}"),
        ("positions: no", r"positions must be text, got False \(YAML reads an unquoted no"),
        ("bad_rows: drop", "bad_rows must be one of error, skip, got 'drop'"),
        ("lora_target_modules: [1]", r"lora_target_modules must be a list or null, got \[1\]"),
        ("layers: [1.5]", "layers must be text or a whole number or a list"),
        ("layers: middle", "layers must be .*got 'middle'"),
        # YAML's number of 61 minutes.
        ("layer_pairing: 1:1", "layer_pairing must be .* in quotes, such as '1:1,2:3', got 61"),
        ("env: HOME", "env must be a mapping, got 'HOME'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_what_is_wanted(config, line: str, problem: str):
    with pytest.raises(ValueError, match=problem):
        parse(config(line))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "a: !!python/object/apply:os.system [ls]",
            "not plain YAML in line 1: .*python",
        ),
        ("max_steps: 1\na: !!python/name:os.system", "not plain YAML in line 2"),
        ("a: [1", "not plain YAML in line 1"),
        ("a: \x07", "not plain YAML"),
        ("- a\n- b", "must hold fields with values"),
        ("just text", "must hold fields with values"),
        ("", "must hold fields with values"),
        ("1: 2", "unknown field '1'"),
        ("[" * 400, "not plain YAML"),
    ],
)
def test_a_file_that_is_no_mapping_of_plain_values_is_refused(config, text: str, problem: str):
    with pytest.raises(ValueError, match=rf"run\.yaml'.* {problem}"):
        parse(config(text))


def test_a_config_that_is_not_there_or_not_named_is_refused(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no config file .*missing\.yaml"):
        parse(["--config", str(tmp_path / "missing.yaml")])
    with pytest.raises(ValueError, match="--config needs the name of a YAML file"):
        parse(["--config"])
    with pytest.raises(ValueError, match="--config is given more than once"):
        parse(["--config", "a", "--config=b"])


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["learning_rate", "max_steps", "layers", "bf16", "run_name", "report_to"]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(max_size=3), values),
        max_leaves=3,
    ),
)
def test_no_value_gets_past_the_parser_as_another_kind_of_error(config, name: str, value: object):
    arguments = config(yaml.safe_dump({name: value}))
    try:
        parse([*arguments, "--report_to=none"] if name != "report_to" else arguments)
    except ValueError as error:
        assert name in str(error)


def test_help_puts_the_fields_of_the_method_first_and_leaves_none_out():
    parser = TrainParser()
    text = parser.format_help()
    titles = ["Representation distillation:", "Data:", "Models:", "Training (Transformers):"]
    assert [text.index(title) for title in titles] == sorted(text.index(t) for t in titles)
    assert text.index("--positions") < text.index("--dataset_name") < text.index("--adam_beta1")
    for action in parser._actions:
        assert action.option_strings[0] in text


@pytest.mark.parametrize("text", ["{a: 1}", "a=1", "[1]", "{"])
@pytest.mark.parametrize(
    "name",
    ["model_init_kwargs", "gradient_checkpointing_kwargs", "lr_scheduler_kwargs"]
    + [n for n in ("activation_checkpointing_kwargs",) if n in OPRDConfig.__dataclass_fields__],
)
def test_what_should_be_json_and_is_not_is_named(name: str, text: str):
    with pytest.raises(ValueError, match=f"^{name} must be a JSON object.*got"):
        parse([f"--{name}", text])


@pytest.mark.parametrize("name", ["fsdp_config", "accelerator_config", "deepspeed"])
def test_what_may_be_a_file_is_json_where_it_begins_like_it(name: str):
    with pytest.raises(ValueError, match=f"^{name} must be a JSON object"):
        parse([f"--{name}", "{a: 1}"])


def test_a_mapping_may_stand_in_a_file(config, tmp_path):
    (tmp_path / "accelerator.json").write_text('{"split_batches": false}')
    path = str(tmp_path / "accelerator.json")
    made = parse([*config("max_steps: 1"), "--accelerator_config", path]).training
    assert made.accelerator_config.split_batches is False


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("lora_target_modules", ["q_proj"], ["q_proj"]),
        ("lora_target_modules", ["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        ("lora_target_modules", ["q_proj, v_proj"], ["q_proj", "v_proj"]),
        ("lora_target_modules", ["all-linear"], "all-linear"),
        ("lora_target_modules", [r".*\.[qv]_proj"], r".*\.[qv]_proj"),
        ("lora_modules_to_save", ["lm_head"], ["lm_head"]),
        ("optim_target_modules", ["q_proj,v_proj"], ["q_proj", "v_proj"]),
    ],
)
def test_one_name_is_a_list_of_one_and_a_pattern_stays_one(name, given, expected):
    _, training, models, _ = parse([f"--{name}", *given])
    owner = models if hasattr(models, name) else training
    assert getattr(owner, name) == expected


@pytest.mark.parametrize(
    "text",
    [
        "model_init_kwargs: &a {b: *a}",
        "layers: &a [*a]",
        "stages: &a\n  - {steps: 1, layers: *a}",
        "env: &a {x: {y: [*a]}}",
    ],
)
def test_an_anchor_that_is_a_part_of_itself_is_refused(config, text: str):
    with pytest.raises(
        ValueError, match=r"run\.yaml' holds an anchor that refers to itself: write"
    ):
        parse(config(text))


def test_an_anchor_may_be_used_as_often_as_one_likes(config):
    text = "chat_template_kwargs: &a {x: [1]}\ngeneration_kwargs: {top_p: 0.5}\n"
    _, training, *_ = parse(config(text + "teacher_model_init_kwargs: *a"))
    assert training.teacher_model_init_kwargs == {"x": [1]}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--report_to", "tensorboard", "trackio"],
        ["--report_to", "tensorboard,trackio"],
        ["--report_to", "tensorboard, trackio"],
        "report_to: [tensorboard, trackio]",
        "report_to: tensorboard, trackio",
    ],
)
def test_several_trackers_are_named_in_any_way(config, monkeypatch, arguments):
    monkeypatch.setattr(trial, "_try_trackers", lambda names: None)
    given = config(arguments) if isinstance(arguments, str) else arguments
    assert parse(given)[1].report_to == ["tensorboard", "trackio"]


def test_dictionaries_on_the_command_line_are_json(config):
    options = json.dumps({"trust_remote_code": True})
    _, training, *_ = parse([*config("max_steps: 1"), "--teacher_model_init_kwargs", options])
    assert training.teacher_model_init_kwargs == {"trust_remote_code": True}
    assert training.trust_remote_code is False


@pytest.mark.parametrize("flags", [True, False])
def test_a_weight_is_a_number_or_a_mapping(config, flags):
    away, towards = {"from": 1, "to": 0.5, "steps": 2}, {"from": 0, "to": 1, "steps": 0.5}
    given = {"representation_weight": away, "output_weight": towards}
    rest = "output_loss: jsd\nmax_steps: 4\n"
    if flags:
        made = [part for k, v in given.items() for part in (f"--{k}", json.dumps(v))]
        found = parse([*config(rest), *made]).training
    else:
        lines = "".join(f"{name}: {json.dumps(value)}\n" for name, value in given.items())
        found = parse(config(rest + lines)).training
    full = {"start": 0, "shape": "linear"}
    assert found.representation_weight == {**away, **full}
    assert found.output_weight == {**towards, **full}
    path = config("representation_weight: 2\n")
    assert parse(path).training.representation_weight == 2
    assert parse([*path, "--representation_weight", ".5"]).training.representation_weight == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("much", "representation_weight must be a number or such as"),
        ("{}", "representation_weight needs from, to, steps"),
        ("nan", "representation_weight must be above 0"),
        ("-1", "representation_weight must be above 0"),
    ],
)
def test_a_weight_that_is_none_is_refused_by_name(text, message):
    with pytest.raises(ValueError, match=message):
        parse([f"--representation_weight={text}", "--report_to=none"])
