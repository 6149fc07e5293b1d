import pytest

from oprd.settings.run import OPRDConfig


def config(tmp_path, **options):
    plain = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": []}
    return OPRDConfig(**plain, **options)


def test_each_teacher_has_the_settings_of_the_run_but_for_its_own(tmp_path):
    teachers = [
        {"name": "a", "source": "x/y", "revision": "main", "layers": "last"},
        {"name": "b", "source": "x/z", "adapter": "x/w", "template": "{{ hint }}", "weight": 2},
        {"name": "c", "source": "ema", "chat_template_kwargs": '{"think": true}'},
    ]
    args = config(tmp_path, teachers=teachers, layers="even", layer_pairing="proportional")
    a, b, c = args.by_teacher().values()
    assert (a.teacher_model_name_or_path, a.teacher_model_revision) == ("x/y", "main")
    assert (a.layers, b.layers) == ("last", "even")
    assert (b.teacher_model_name_or_path, b.teacher_base_model_name_or_path) == ("x/w", "x/z")
    assert (c.teacher_source, c.teacher_chat_template_kwargs) == ("ema", {"think": True})
    assert args.teacher_columns == {"hint", "teacher"}
    assert args.teacher_weights == {"a": None, "b": 2, "c": None}
    # The run's own are as they were.
    assert args.layers == "even" and args.teacher_source == "path"


def test_a_command_line_gives_them_as_json(tmp_path):
    args = config(tmp_path, teachers='[{"name": "a", "source": "x"}, {"name": "b"}]')
    assert list(args.by_teacher()) == ["a", "b"]


def test_one_teacher_is_the_run(tmp_path):
    args = config(tmp_path)
    assert args.by_teacher() == {"": args}


A, B = {"name": "a", "source": "x"}, {"name": "b", "source": "y"}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"teachers": [A]}, "a list of two mappings or more"),
        ({"teachers": "[1"}, "must be a JSON list of mappings"),
        ({"teachers": [A, A]}, "two teachers have the name 'a'"),
        ({"teachers": [A, {"source": "x"}]}, "teacher 2 needs a name of letters"),
        ({"teachers": [A, {"name": "a.b"}]}, "teacher 2 needs a name of letters"),
        ({"teachers": [A, {**B, "wieght": 1}]}, "cannot set 'wieght': did you mean weight?"),
        ({"teachers": [A, {**B, "weight": -1}]}, "the weight of teacher 'b' must be at least 0"),
        ({"teachers": [{**A, "weight": 0}, {**B, "weight": 0}]}, "weights .* a, b sum to 0"),
        ({"teachers": [A, {**B, "bridge": "fit"}]}, "bridge='fit' of teacher 'b'"),
        ({"teachers": [A, {**B, "template": "{{ x"}]}, "teacher 'b': teacher_template is no Jinja"),
        ({"teachers": [A, {**B, "layers": "0"}]}, "teacher 'b': "),
        (
            {"teachers": [A, {**B, "layer_pairing": "similarity"}]},
            "teacher 'b': layer_pairing='similarity' is measured for an only teacher",
        ),
        (
            {"teachers": [{**A, "source": "ema"}, {**B, "source": "ema"}]},
            "two teachers have the source 'ema'",
        ),
        ({"teachers": [A, {**B, "adapter": "z", "source": "copy"}]}, "teacher 'b' is an adapter"),
        ({"teachers": [A, B], "teacher_source": "copy"}, "teacher_source is for a run with one"),
        ({"teachers": [A, B], "bridge": "fit"}, "bridge is for a run with one teacher"),
        (
            {"teachers": [A, B], "teacher_model_name_or_path": "z"},
            "teacher_model_name_or_path is for a run with one teacher",
        ),
        ({"teacher_batches": "pur"}, "did you mean 'pure'"),
        ({"teacher_offload": "disk"}, "teacher_offload must be one of cpu"),
    ],
)
def test_what_no_team_can_be_is_refused_at_construction(tmp_path, options, problem):
    with pytest.raises(ValueError, match=problem):
        config(tmp_path, **options)
