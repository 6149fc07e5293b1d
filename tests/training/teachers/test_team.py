"""Several teachers of one run: who reads what, whose loss it is, and what is refused."""

import copy

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from oprd.models.load import load_model
from oprd.models.reading import View
from oprd.models.views import Views
from oprd.training.teachers.assemble import obtain
from tests import tiny
from tests.training import runs
from tests.training.runs import LORA, largest_difference, scripted, trainer, weights

PROMPTS = runs.PROMPTS[:8]
ROUTE = ["a", "b"] * 4
TWO = [{"name": "a"}, {"name": "b"}]


def models(**options):
    return {"a": tiny.model(seed=2, **options), "b": tiny.model(seed=3, **options)}


def made(folder, *, route=ROUTE, teachers=TWO, teacher=None, columns=None, double=False, **options):
    """A trainer of two teachers, who take turns in the rows unless told otherwise."""
    given = models() if teacher is None else teacher
    student = options.pop("student", None) or tiny.model(seed=1)
    if double:
        student, given = student.double(), {n: m.double() for n, m in given.items()}
    routed = {} if route is None else {"teacher": route}
    plain = {"per_device_train_batch_size": 8, "shuffle_dataset": False, "teacher_batches": "mixed"}
    return trainer(
        folder,
        student,
        given,
        prompts=PROMPTS,
        columns={**routed, **(columns or {})} or None,
        teachers=copy.deepcopy(teachers),
        **{**plain, **options},
    )


def loss_of(folder, **options):
    found = made(folder, **options)
    found.train()
    return found.state.log_history[0], weights(found.student)


def naive(student, teacher, prompts):
    """Σ over prompts of Eq. 6 for one sequence, from outputs with all hidden states."""
    total = 0.0
    for prompt in prompts:
        ids = tiny.tokenizer()(prompt)["input_ids"]
        response = scripted(ids)
        states = []
        for model in (student, teacher):
            with torch.no_grad():
                every = model(torch.tensor([ids + response]), output_hidden_states=True)
            rows = [h[0, len(ids) - 1 : -1] for h in every.hidden_states[1:]]
            states.append(torch.stack(rows))
        total += (states[0] - states[1]).square().mean().item()
    return total


def test_each_row_is_pulled_to_its_own_teacher_and_counts_once(tmp_path):
    log, _ = loss_of(tmp_path)
    student, both = tiny.model(seed=1), models()
    own = {n: [p for p, r in zip(PROMPTS, ROUTE, strict=True) if r == n] for n in both}
    expected = {n: naive(student, both[n], own[n]) for n in both}
    assert log["loss"] == pytest.approx(sum(expected.values()) / 8, rel=1e-4)
    for name, total in expected.items():
        assert log[f"teacher/{name}/loss"] == pytest.approx(total / 4, rel=1e-4)
    assert log["teacher/a/tokens_ratio"] + log["teacher/b/tokens_ratio"] == pytest.approx(1)
    lowest, highest = sorted(log[f"teacher/{n}/rep_cosine"] for n in both)
    assert lowest <= log["rep_cosine"] <= highest


def test_losses_on_the_same_rows_are_averaged_by_weight(tmp_path):
    weighed = [{"name": "a", "weight": 3}, {"name": "b", "weight": 1}]
    log, _ = loss_of(tmp_path, route=None, teachers=weighed)
    student, both = tiny.model(seed=1), models()
    expected = 0.75 * naive(student, both["a"], PROMPTS) + 0.25 * naive(student, both["b"], PROMPTS)
    assert log["loss"] == pytest.approx(expected / 8, rel=1e-4)


@pytest.mark.parametrize("route", [["a"] * 8, [["a"]] * 8], ids=["name", "list"])
@pytest.mark.parametrize(
    "options",
    [{}, {"output_loss": "reverse_kl", "diagnostics_steps": 1}, {"scale": "layer"}],
    ids=["states", "outputs", "scale"],
)
def test_rows_of_one_teacher_alone_are_a_run_with_it_alone(tmp_path, route, options):
    found = loss_of(tmp_path / "two", route=route, **options)
    alone = trainer(
        tmp_path / "one",
        tiny.model(seed=1),
        models()["a"],
        prompts=PROMPTS,
        per_device_train_batch_size=8,
        shuffle_dataset=False,
        **options,
    )
    alone.train()
    assert found[0]["loss"] == alone.state.log_history[0]["loss"]
    assert largest_difference(found[1], weights(alone.student)) == 0


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"output_loss": "topk", "output_loss_kwargs": {"k": 4}},
        {"route": [["a", "b"], ["a"], ["b"], ["b"]] * 2},
        {"reduction": "token", "position_k": 3, "positions": "last_k"},
        {"columns": {"teacher_prompt": [f"it is {n}. {p}" for n, p in enumerate(PROMPTS)]}},
    ],
    ids=["states", "outputs", "lists", "tokens", "prompts"],
)
def test_any_split_into_micro_batches_takes_the_same_step(tmp_path, options):
    whole = loss_of(tmp_path / "whole", double=True, **options)
    # Some parts have rows of one teacher alone.
    parts = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    split = loss_of(tmp_path / "split", double=True, **options, **parts)
    assert split[0]["loss"] == pytest.approx(whole[0]["loss"], rel=1e-6)
    assert largest_difference(whole[1], split[1]) < 1e-6
    for name in ("teacher/a/loss", "teacher/b/rep_cosine"):
        assert split[0][name] == pytest.approx(whole[0][name], rel=1e-5)


def test_each_teacher_has_its_own_layers_and_prompt(tmp_path):
    teachers = [{"name": "a", "layers": "last"}, {"name": "b", "template": "x {{ prompt }}"}]
    found = made(tmp_path, teachers=teachers)
    found.train()
    log = found.state.log_history[0]
    assert [len(member.teacher.pairs) for member in found._team.values()] == [1, 3]
    assert {"teacher/a/rep_cosine", "teacher/b/rep_cosine", "rep_cosine"} <= log.keys()
    batch = found._generate_and_score_completions(
        [{"prompt": p, "teacher": r} for p, r in zip(PROMPTS, ROUTE, strict=True)]
    )
    longest = batch["teacher_prompt_maskb"].sum(-1)[:, 0]
    assert longest.tolist()[::2] == [1] * 4 and min(longest.tolist()[1::2]) > 1
    assert "teacher_prompt_idsa" not in batch


def test_pure_updates_have_one_teacher_each(tmp_path):
    options = {"per_device_train_batch_size": 4, "teacher_batches": "pure", "max_steps": 4}
    found = made(tmp_path, shuffle_dataset=True, **options)
    found.train()
    for log in found.state.log_history[:4]:
        assert sorted(log[f"teacher/{n}/tokens_ratio"] for n in "ab") == [0, 1]
    seen = [log["teacher/a/tokens_ratio"] for log in found.state.log_history[:4]]
    assert sum(seen) == 2


def test_a_teacher_reads_only_its_own_rows(tmp_path):
    found, read = made(tmp_path), {}
    for name, member in found._team.items():
        reader, once = member.teacher.reader, member.teacher.reader.read

        def counted(student, views, *args, once=once, name=name, **options):
            read[name] = read.get(name, 0) + len(views.views[0].input_ids)
            return once(student, views, *args, **options)

        reader.read = counted
    found.train()
    assert read == {"a": 4, "b": 4}


def test_several_updates_on_the_same_rollouts_read_once(tmp_path):
    found, count = made(tmp_path, updates_per_rollout=2, max_steps=2), []
    for member in found._team.values():
        once = member.teacher._read
        member.teacher._read = lambda *a, once=once, **o: count.append(1) or once(*a, **o)
    found.train()
    assert len(count) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"teachers": [{"name": "a"}, {"name": "b", "source": "ema"}], "ema_decay": 0.7},
        {"scale": "layer"},
        {"teacher_batches": "pure", "per_device_train_batch_size": 4},
        {"updates_per_rollout": 2},
    ],
    ids=["ema", "scale", "pure", "updates"],
)
def test_a_resumed_run_ends_with_the_weights_of_one_never_stopped(tmp_path, options):
    plain = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    plain |= {"learning_rate": 1e-2, "shuffle_dataset": True, "rollout": None}

    def finish(folder, resume=None):
        given = models()
        if "teachers" in options:
            del given["b"]
        torch.manual_seed(0)
        found = made(folder, teacher=given, **{**plain, **options})
        found.train(resume_from_checkpoint=resume)
        return weights(found.student)

    whole = finish(tmp_path / "whole")
    resumed = finish(tmp_path / "resumed", str(tmp_path / "whole" / "checkpoint-2"))
    assert largest_difference(whole, resumed) == 0


def test_a_run_does_not_go_on_with_other_teachers(tmp_path):
    made(tmp_path, max_steps=2, save_strategy="steps", save_steps=2).train()
    other = {**models(), "b": tiny.model(seed=4)}
    found = made(tmp_path, teacher=other, max_steps=4)
    with pytest.raises(ValueError, match="began with teachers="):
        found.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


@pytest.mark.parametrize("first", ["one", "several"])
def test_a_run_of_one_teacher_does_not_go_on_with_several_nor_the_other_way(tmp_path, first):
    def of(count, steps):
        plain = {"max_steps": steps, "save_strategy": "steps", "save_steps": 2}
        if count == "several":
            return made(tmp_path, **plain)
        student, teacher = tiny.model(seed=1), tiny.model(seed=2)
        options = {"per_device_train_batch_size": 8, "shuffle_dataset": False, **plain}
        return trainer(tmp_path, student, teacher, prompts=PROMPTS, **options)

    of(first, 2).train()
    found = of("several" if first == "one" else "one", 4)
    with pytest.raises(ValueError, match="began with"):
        found.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


# --- adapters -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A base model and two adapters on it."""
    folder = tmp_path_factory.mktemp("models")
    base = tiny.model(seed=1)
    base.save_pretrained(folder / "base")
    tiny.tokenizer().save_pretrained(folder / "base")
    for seed, name in enumerate("ab"):
        adapted = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA))
        generator = torch.Generator().manual_seed(seed)
        for weight_name, parameter in adapted.named_parameters():
            if "lora_" in weight_name:
                parameter.data = torch.randn(parameter.shape, generator=generator) / 3
        adapted.base_model.model.config.name_or_path = str(folder / "base")
        adapted.peft_config["default"].base_model_name_or_path = str(folder / "base")
        adapted.save_pretrained(folder / name)
    return folder


def adapters(places):
    return [{"name": n, "source": str(places / "base"), "adapter": str(places / n)} for n in "ab"]


@pytest.mark.parametrize("lora", [True, False], ids=["on the student", "on a base of their own"])
def test_adapters_on_one_base_hold_it_once_and_are_what_they_are_alone(tmp_path, places, lora):
    options = {"peft_config": LoraConfig(**LORA)} if lora else {}
    student = str(places / "base")
    found = trainer(
        tmp_path / "two",
        student,
        None,
        prompts=PROMPTS,
        columns={"teacher": ROUTE},
        teachers=adapters(places),
        teacher_batches="mixed",
        **options,
    )
    hosts = {id(member.teacher.reader.model) for member in found._team.values()}
    assert len(hosts) == 1
    assert (hosts == {id(found.student)}) == lora
    # Of whole weights there are the student's, and one more base where that is not theirs.
    models = [found.student, *(member.teacher.reader.model for member in found._team.values())]
    held = {
        p.data_ptr(): p.numel() for m in models for n, p in m.named_parameters() if "lora" not in n
    }
    whole = sum(p.numel() for p in load_model(student)[0].parameters())
    assert sum(held.values()) == whole * (1 if lora else 2)
    ids = torch.arange(12).reshape(2, 6) + 60
    for name, member in found._team.items():
        read = member.teacher.reader.read(
            found.student, Views((View.of_texts(ids),)), [], last=True
        )
        alone, _ = load_model(str(places / name))
        with torch.no_grad():
            expected = alone(ids, output_hidden_states=True).hidden_states[-1].flatten(0, 1)
        torch.testing.assert_close(read.last, expected, rtol=1e-4, atol=1e-5)
    found.train()
    found.save_model(str(tmp_path / "saved"))
    saved = list((tmp_path / "saved").glob("*.safetensors"))
    assert saved and not [name for name in load_file(saved[0]) if "teacher" in name]


def test_two_of_one_source_are_one_model(tmp_path):
    twice = [
        {"name": "a", "source": "copy"},
        {"name": "b", "source": "copy", "template": "x {{ prompt }}"},
    ]
    found = made(tmp_path, teacher={}, teachers=twice)
    assert len({id(member.teacher.reader.model) for member in found._team.values()}) == 1
    found.train()


# --- what waits on the CPU ------------------------------------------------------------------------


def test_a_teacher_that_waits_is_read_as_one_that_does_not(tmp_path):
    options = {"output_loss": "reverse_kl"}
    plain = loss_of(tmp_path / "plain", **options)
    found = loss_of(tmp_path / "waits", teacher_offload="cpu", **options)
    assert found[0]["loss"] == plain[0]["loss"] and largest_difference(found[1], plain[1]) == 0


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            {"route": ["a", "b", "c", "a", "b", "a", "b", "a"]},
            r"training prompt 2 names the teacher 'c', and there are a, b",
        ),
        ({"route": ["a"] * 7 + [None]}, "training prompt 7 names no teacher"),
        ({"route": None}, "no column 'teacher' that says who of a, b teaches a row"),
        (
            {
                "route": [["a", "b"]] * 8,
                "teachers": [{"name": "a", "weight": 0}, {"name": "b", "weight": 0}],
            },
            "the weights of the teachers a, b sum to 0",
        ),
        (
            {
                "route": [["a", "b"]] * 8,
                "teachers": [{"name": "a", "weight": 0}, {"name": "b", "weight": 0}, {"name": "c"}],
                "teacher": {**models(), "c": tiny.model(seed=4)},
            },
            "training prompt 0 has the teachers a, b, whose weights sum to 0",
        ),
        ({"teacher": {"a": tiny.model(seed=2)}}, "a teacher is needed"),
        ({"teacher": {**models(), "c": tiny.model(seed=4)}}, "teacher_model gives c, and teachers"),
        ({"teacher": tiny.model(seed=2)}, "gives a teacher without a name, and teachers are a, b"),
        (
            {"teachers": [{"name": "a", "template": "{{ x }}"}, {"name": "b"}]},
            "teacher_template names 'x', which is no column",
        ),
        (
            {"teacher_batches": "pure", "route": ["a"] * 6 + ["b"] * 2},
            None,
        ),
    ],
)
def test_what_cannot_be_taught_is_refused_at_construction(tmp_path, options, problem):
    if problem is None:
        found = made(tmp_path, **options)
        with pytest.raises(ValueError, match="the teacher a has 6 prompts, and an update"):
            found.train()
        return
    with pytest.raises(ValueError, match=problem):
        made(tmp_path, **options)


def test_a_context_too_short_for_one_teachers_prompt_names_teacher_row_and_lengths(tmp_path):
    teachers = [{"name": "a"}, {"name": "b", "template": "{{ hint }} {{ prompt }}"}]
    columns = {"hint": ["x " * (200 if n == 3 else 1) for n in range(8)]}
    with pytest.raises(ValueError, match=r"prompt 3 .*tokens.*teacher reads 256 at most"):
        made(tmp_path, teachers=teachers, columns=columns)
    # Row 2 is not its own.
    columns = {"hint": ["x " * (200 if n == 2 else 1) for n in range(8)]}
    assert len(made(tmp_path, teachers=teachers, columns=columns).train_dataset) == 8


def test_names_without_teachers_in_the_settings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="teacher_model gives a, b by name: set teachers"):
        made(tmp_path, teachers=None)


def test_what_waits_on_the_cpu_is_refused_where_weights_are_in_pieces(tmp_path):
    found = made(tmp_path, teacher_offload="cpu")
    found.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="teacher_offload='cpu' moves whole models"):
        obtain(found._team, found, None, None)


def test_other_weights_of_the_teachers_are_another_run(tmp_path):
    def weighed(weight):
        return [{"name": "a", "weight": 1}, {"name": "b", "weight": weight}]

    options = {"route": None, "save_strategy": "steps", "save_steps": 2}
    made(tmp_path, teachers=weighed(1), max_steps=2, **options).train()
    found = made(tmp_path, teachers=weighed(2), max_steps=4, **options)
    with pytest.raises(ValueError, match="began with teacher_prompts="):
        found.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_a_stream_says_by_its_rows_who_teaches(tmp_path):
    found = made(tmp_path)
    rows = [{"prompt": p, "teacher": r} for p, r in zip(PROMPTS, ROUTE, strict=True)]
    found.train_dataset = Dataset.from_list(rows).to_iterable_dataset()
    found._step = 0
    output = found._generate_and_score_completions(rows)
    assert output["teacher_shares"].tolist() == [[1, 0], [0, 1]] * 4
    rows[5]["teacher"] = "nobody"
    with pytest.raises(ValueError, match="names the teacher 'nobody'"):
        found._generate_and_score_completions(rows)


# --- beside other settings ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"stages": [{"steps": 1}, {"steps": 1, "output_loss": "reverse_kl"}], "max_steps": -1},
        {"prefix_gradients": False, "position_k": 2, "positions": "last_k"},
        {"peft_config": LoraConfig(**LORA), "gradient_checkpointing": True},
        {"state_loss": "gram"},
        {"extrapolation": 1.25, "reference_model": tiny.model(seed=5)},
        {"rollout": lambda ids: []},
    ],
    ids=["stages", "prefix", "adapter", "gram", "extrapolation", "empty"],
)
@pytest.mark.parametrize("updates", [1, 2])
def test_other_settings_go_with_several_teachers(tmp_path, options, updates):
    plain = {"max_steps": 2, "updates_per_rollout": updates, "optim": "adamw_torch"}
    options = {**plain, **options}
    if updates == 2 and "stages" in options:
        options["stages"] = [{**stage, "steps": 2} for stage in options["stages"]]
    found = made(tmp_path, **options)
    before = weights(found.student)
    found.train()
    losses = [log["loss"] for log in found.state.log_history if "loss" in log]
    assert all(torch.isfinite(torch.tensor(losses)))
    moved = largest_difference(before, weights(found.student))
    assert (moved == 0) == (max(losses) == 0)


def test_a_wider_teacher_among_several_is_not_told_to_fit_a_bridge(tmp_path):
    with pytest.raises(ValueError, match=r"32 wide.*teacher's 64.*bridge to its file") as raised:
        made(tmp_path, teacher=models(hidden_size=64))
    assert "bridge='fit'" not in str(raised.value)
    # Of an only one it is the first thing to try.
    with pytest.raises(ValueError, match="bridge='fit'"):
        trainer(tmp_path, teacher=tiny.model(seed=2, hidden_size=64))
