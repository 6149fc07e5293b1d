import json
import logging
import re
import shutil
import signal
import threading
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import EarlyStoppingCallback, TrainerCallback

from oprd import OPRDConfig, OPRDTrainer
from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.records import read_records
from oprd.evaluation.result import Evaluation
from oprd.evaluation.tasks.load import load_task
from oprd.guards import saving
from oprd.guards.signals import Stopped
from oprd.runs.lines import read_lines
from oprd.runs.manifest import problem, write_manifest
from oprd.training.task_evaluation import TaskEvaluation
from tests import tiny
from tests.training import distributed_evaluation
from tests.training.runs import settings, trainer, weights
from tests.training.test_distributed import launch
from tests.training.test_trainer import LORA

TASKS = {"eval_tasks": "additions", "eval_samples": 2, "eval_limit": 3, "eval_max_new_tokens": 6}
# Rollouts from the student, so that a disturbed random state shows.
STEPS = {"rollout": None, "max_steps": 4, "eval_steps": 2, **TASKS}


def evaluations(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if any(key.startswith("eval/") for key in line)}


def samples(folder: Path, step: int) -> Path:
    return folder / "evaluations" / f"step-{step:06d}" / "additions.jsonl"


def test_the_student_is_evaluated_before_every_so_many_steps_and_after(tmp_path):
    made = trainer(tmp_path, **{**STEPS, "max_steps": 5})
    made.train()
    logged = evaluations(tmp_path)
    assert list(logged) == [0, 2, 4, 5]
    for step, line in logged.items():
        found = Evaluation.from_file(samples(tmp_path, step))
        figures = {f"eval/additions/{name}": value for name, value in found.figures().items()}
        assert figures.items() <= line.items() and "eval/additions/avg@2" in figures
    after = evaluate_model(
        made.student,
        tiny.tokenizer(),
        load_task("additions"),
        limit=3,
        samples=2,
        max_new_tokens=6,
        seed=made.args.seed,
        batch_size=8,
        progress=False,
    )
    assert [r.ids for r in after.records] == [r.ids for r in read_records(samples(tmp_path, 5))[1]]


def test_evaluating_leaves_every_step_its_log(tmp_path):
    made = trainer(tmp_path, **{**STEPS, "logging_steps": 1})
    made.train()
    assert [line["step"] for line in made.state.log_history if "loss" in line] == [1, 2, 3, 4]


def test_the_best_of_another_figure_does_not_stand(tmp_path, monkeypatch):
    values = {"avg@2": 0.3, "best@2": 0.9}
    monkeypatch.setattr(TaskEvaluation, "_evaluate_on", lambda *_: values)
    options = {**STEPS, "save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, **options, keep_best="additions/best@2").train()
    best = tmp_path / "best" / "best.json"
    assert json.loads(best.read_text())["value"] == 0.9
    made = trainer(tmp_path, **options, keep_best="additions/avg@2")
    made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert json.loads(best.read_text()) == {"figure": "additions/avg@2", "value": 0.3, "step": 4}
    assert not list(tmp_path.glob("best.*"))


def test_the_best_student_is_hashed_beside_the_next_step(tmp_path, monkeypatch):
    stepped, write = threading.Event(), saving.write_manifest

    def slowly(folder, *args):
        if folder.name.startswith("best"):
            assert stepped.wait(60)
        write(folder, *args)

    monkeypatch.setattr(saving, "write_manifest", slowly)
    monkeypatch.setattr(TaskEvaluation, "_evaluate_on", lambda *_: {"avg@2": 0.5})
    made = trainer(tmp_path, **STEPS, keep_best="additions/avg@2")
    step = made.training_step

    def stepping(*args, **kwargs):
        stepped.set()
        return step(*args, **kwargs)

    monkeypatch.setattr(made, "training_step", stepping)
    made.train()
    assert problem(tmp_path / "best") is None and not list(tmp_path.glob("best.*"))


def test_a_figure_that_has_no_value_keeps_no_student(tmp_path, monkeypatch):
    # Of a grader that reads no answers, on which nobody can vote.
    monkeypatch.setattr(TaskEvaluation, "_evaluate_on", lambda *_: {"avg@2": 1.0})
    trainer(tmp_path, **STEPS, keep_best="additions/maj@2").train()
    assert not (tmp_path / "best").exists()


def test_without_eval_steps_it_is_evaluated_before_and_after(tmp_path):
    trainer(tmp_path, max_steps=2, **TASKS).train()
    assert list(evaluations(tmp_path)) == [0, 2]


@pytest.mark.parametrize("lora", [False, True])
def test_evaluating_leaves_training_as_it_was(tmp_path, lora):
    def run(folder, **options):
        made = trainer(
            tmp_path / folder,
            student=tiny.model(seed=1, attention_dropout=0.3),
            peft_config=LoraConfig(**LORA, lora_dropout=0.3) if lora else None,
            gradient_checkpointing=True,
            logging_steps=3,
            **{**STEPS, **options},
        )
        made.train()
        losses = [line for line in made.state.log_history if "loss" in line]
        timeless = [
            {k: v for k, v in line.items() if not re.search("second|time|memory", k)}
            for line in losses
        ]
        return weights(made.student), timeless

    with_tasks, logged = run("with")
    without, expected = run("without", eval_tasks=None)
    assert all(torch.equal(with_tasks[name], without[name]) for name in without)
    assert logged == expected


def test_a_resumed_run_repeats_its_evaluations(tmp_path):
    options = {**STEPS, "save_strategy": "steps", "save_steps": 2}
    trainer(tmp_path, **options).train()
    whole = evaluations(tmp_path), samples(tmp_path, 4).read_text()
    # As a crash during an evaluation would leave it.
    samples(tmp_path, 4).write_text(whole[1][:-200].replace('"weights": null', '"weights": "x"'))
    trainer(tmp_path, **options).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert evaluations(tmp_path) == whole[0]
    first, again = (text.splitlines()[1:] for text in (whole[1], samples(tmp_path, 4).read_text()))
    ids = [[json.loads(line)["ids"] for line in lines] for lines in (first, again)]
    assert ids[0] == ids[1]


def test_a_new_run_drops_the_samples_of_an_older_one(tmp_path):
    trainer(tmp_path, **{**STEPS, "max_steps": 6}).train()
    trainer(tmp_path, student=tiny.model(seed=5), **{**STEPS, "max_steps": 2}).train()
    assert sorted(path.name for path in (tmp_path / "evaluations").iterdir()) == [
        "step-000000",
        "step-000002",
    ]


@pytest.mark.parametrize("lora", [False, True])
def test_the_best_student_is_kept(tmp_path, monkeypatch, lora):
    values = {0: 0.1, 1: 0.5, 2: 0.5, 3: 0.2, 4: 0.3}
    seen = {}

    def evaluate_on(self, task, step):
        seen[step] = weights(self._trainer.student)
        return {"avg@2": values[step]}

    monkeypatch.setattr(TaskEvaluation, "_evaluate_on", evaluate_on)
    base = tmp_path / "base"
    tiny.model(seed=1).save_pretrained(base)
    options = {"keep_best": "additions/avg@2", "eval_steps": 1, "save_strategy": "steps"}
    lora_config = LoraConfig(**LORA) if lora else None

    def run(**more):
        made = trainer(
            tmp_path / "run", str(base), **{**STEPS, **options, **more}, peft_config=lora_config
        )
        return made

    made = run(save_steps=2)
    made.train()
    best = tmp_path / "run" / "best"
    assert json.loads((best / "best.json").read_text()) == {
        "figure": "additions/avg@2",
        "value": 0.5,
        "step": 1,
    }
    assert (best / "tokenizer.json").is_file() and not best.with_name("best.partial").exists()
    made.save_model(str(tmp_path / "last"))
    suffix = "adapter_model.safetensors" if lora else "model.safetensors"
    kept, last = (_stored(folder / suffix) for folder in (best, tmp_path / "last"))
    different = [name for name in kept if not torch.equal(kept[name], last[name])]
    assert different
    if not lora:
        assert all(torch.equal(kept[name], seen[1][name]) for name in kept)

    run(save_steps=2).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert json.loads((best / "best.json").read_text())["step"] == 1


def _stored(path):
    from safetensors.torch import load_file

    return load_file(path)


def test_beside_a_teachers_adapter_it_is_the_student_that_is_evaluated(tmp_path):
    base = tmp_path / "base"
    tiny.model(seed=1).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    teacher = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA, init_lora_weights=False))
    teacher.peft_config["default"].base_model_name_or_path = str(base)
    teacher.save_pretrained(tmp_path / "teacher")
    made = trainer(
        tmp_path / "run",
        student=str(base),
        teacher=str(tmp_path / "teacher"),
        peft_config=LoraConfig(**LORA),
        **STEPS,
    )
    made.train()
    assert made.shares_base
    made.save_model()
    settings = {"limit": 3, "samples": 2, "max_new_tokens": 6, "seed": made.args.seed}
    for step, source in ((0, base), (4, tmp_path / "run")):
        found = evaluate_model(
            str(source), None, load_task("additions"), **settings, batch_size=8, progress=False
        )
        _, expected = read_records(samples(tmp_path / "run", step))
        assert [r.ids for r in found.records] == [r.ids for r in expected]


def test_problems_that_are_trained_on_are_warned_of(tmp_path, caplog):
    prompts = [p.prompt for p in load_task("additions", limit=2).problems] + ["else"] * 4
    made = trainer(tmp_path, prompts=prompts, **TASKS)
    with caplog.at_level(logging.WARNING):
        made.train()
    assert "2 of the 3 problems of additions are among the training prompts" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_tasks": "sums"}, "task 'sums' is unknown"),
        ({"keep_best": "additions/avg@16"}, r"one of additions/avg@2, .*, got 'additions/avg@16'"),
        ({"keep_best": "arithmetic/avg@2"}, "keep_best must be one of additions/avg@2"),
        ({"keep_best": "additions/length"}, "keep_best must be one of"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_before_training(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, **{**TASKS, **options})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eval_samples": 0}, "eval_samples must be a whole number of at least 1, got 0"),
        ({"eval_limit": 0}, "eval_limit must be"),
        ({"eval_temperature": -1.0}, "eval_temperature must be at least 0, got -1"),
        ({"eval_temperature": 0.0}, "gives 4 identical responses: set eval_samples=1"),
        ({"keep_best": "aime24/avg@4"}, "keep_best='aime24/avg@4' needs eval_tasks"),
    ],
)
def test_settings_out_of_range_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        OPRDConfig(output_dir="unused", use_cpu=True, report_to=[], **options)


def test_tasks_are_given_one_by_one_or_together():
    def names(given):
        return OPRDConfig("unused", use_cpu=True, report_to=[], eval_tasks=given).eval_task_names

    assert names("aime24, math500") == names(["aime24", "math500"]) == ["aime24", "math500"]
    assert names(None) == names("") == []


def test_a_fresh_evaluation_asks_as_the_run_did_but_for_the_seed():
    options = {"eval_tasks": ["my task.jsonl", "additions"], "eval_temperature": 0.5, "seed": 3}
    more = {"eval_limit": 5, "chat_template_kwargs": {"enable_thinking": False}}
    args = OPRDConfig("my run", use_cpu=True, report_to=[], **options, **more)
    assert args.fresh_evaluation == (
        "oprd eval --model 'my run/best' --tasks 'my task.jsonl,additions' --samples 4 "
        f"--temperature 0.5 --max_new_tokens {args.max_completion_length} --limit 5 "
        "--chat_template_kwargs '{\"enable_thinking\": false}' --seed 4"
    )


def test_two_processes_draw_what_one_draws(tmp_path, two_processes):
    one, two = tmp_path / "one", tmp_path / "two"
    distributed_evaluation.main(str(one))
    errors = two_processes("training.distributed_evaluation", two)
    assert not any(errors), errors
    found = []
    for folder in (one, two):
        _, records = read_records(samples(folder, 1))
        found.append([(r.key, r.ids, r.status) for r in records])
        assert len(records) == 10
        assert (folder / "best" / "model.safetensors").is_file()
        assert list(evaluations(folder)) == [0, 1]
    assert sorted(found[0]) == sorted(found[1])


@pytest.mark.slow
def test_two_processes_draw_together_from_a_sharded_model():
    done = launch(2, "training.fsdp2_evaluation")
    assert done.returncode == 0, done.stderr[-3000:]


GRADERS = {
    "truth": "def grade(text, gold):\n    return text != gold",
    "raises": "def grade(text, gold):\n    return float(gold) > 0",
    "none": "def grade(text, gold):\n    text == gold",
}


def graded_task(folder, name, problems=4):
    file = folder / f"task_{name}.py"
    row = '{"prompt": f"{n}?", "answer": "a"}'
    file.write_text(f"{GRADERS[name]}\nprompts = [{row} for n in range({problems})]\n")
    return str(file)


def test_a_grader_of_ones_own_says_right_or_wrong(tmp_path):
    options = {**TASKS, "eval_tasks": graded_task(tmp_path, "truth"), "max_steps": 1}
    trainer(tmp_path / "run", **options).train()
    assert {line["eval/task_truth/avg@2"] for line in evaluations(tmp_path / "run").values()} == {1}


@pytest.mark.parametrize(
    ("name", "what"), [("raises", "raised ValueError: could not"), ("none", "returned None, which")]
)
def test_a_grader_that_cannot_grade_stops_before_the_first_step(tmp_path, name, what):
    made = trainer(tmp_path, **{**TASKS, "eval_tasks": graded_task(tmp_path, name)})
    with pytest.raises(ValueError, match=f"the grader of task 'task_{name}' {what}"):
        made.train()
    assert made.state.global_step == 0


@pytest.mark.parametrize("name", ["raises", "none"])
def test_all_processes_stop_where_the_grader_cannot_grade(tmp_path, name, two_processes):
    task = graded_task(tmp_path, name)
    main, other = two_processes("training.distributed_grader", tmp_path / "run", task)
    sentence = f"the grader of task 'task_{name}' r"
    assert f"GraderError: {sentence}" in main and "has stopped" not in main
    assert f"process 0 has stopped: GraderError: {sentence}" in other


def test_a_grader_that_once_graded_does_not_stop_the_run(tmp_path, caplog):
    file = tmp_path / "task_later.py"
    file.write_text(
        "calls = []\n"
        "def grade(text, gold):\n"
        "    calls.append(text)\n"
        "    assert len(calls) < 4\n"
        "    return 1\n"
        'prompts = [{"prompt": f"{n}?", "answer": "a"} for n in range(2)]\n'
    )
    options = {**TASKS, "eval_tasks": str(file), "max_steps": 1}
    with caplog.at_level(logging.WARNING):
        trainer(tmp_path / "run", **options).train()
    assert [e["eval/task_later/avg@2"] for e in evaluations(tmp_path / "run").values()] == [0.75, 0]
    assert caplog.text.count("raised AssertionError (task_later.py, line 4)") == 1


@pytest.mark.parametrize("when", ["construction", "training"])
def test_early_stopping_by_a_task_is_refused_in_one_sentence(tmp_path, when):
    def run():
        made = trainer(tmp_path, eval_tasks="additions", eval_limit=2)
        made.add_callback(EarlyStoppingCallback())
        made.train()

    def construct():
        OPRDTrainer(
            "no such student", "no such teacher", settings(tmp_path, eval_tasks="additions"),
            callbacks=[EarlyStoppingCallback],
        )  # fmt: skip

    with pytest.raises(ValueError, match="EarlyStoppingCallback stops by what eval_strategy"):
        run() if when == "training" else construct()


def scripted_figures(monkeypatch, values: dict[int, float]) -> None:
    """Figures by step, in the place of an evaluation."""
    monkeypatch.setattr(
        TaskEvaluation, "_evaluate_on", lambda self, task, step: {"avg@2": values[step]}
    )


RISES_AND_FALLS = {0: 0.1, 1: 0.4, 2: 0.6, 3: 0.5, 4: 0.6, 5: 0.9, 6: 0.0}
PATIENT = {**STEPS, "max_steps": 6, "eval_steps": 1, "keep_best": "additions/avg@2"}


@pytest.mark.parametrize(("patience", "last"), [(1, 3), (2, 4), (3, 6), (None, 6)])
def test_a_run_ends_when_its_figure_rises_no_more(tmp_path, monkeypatch, caplog, patience, last):
    scripted_figures(monkeypatch, RISES_AND_FALLS)
    made = trainer(tmp_path, **PATIENT, eval_patience=patience)
    made.train()
    assert made.state.global_step == last
    assert max(evaluations(tmp_path)) == last
    best = json.loads((tmp_path / "best" / "best.json").read_text())
    assert best["step"] == (2 if last < 5 else 5)
    assert ("The run ends at step" in caplog.text) == (last < 6)


def test_a_resumed_run_goes_on_waiting(tmp_path, monkeypatch):
    scripted_figures(monkeypatch, RISES_AND_FALLS)
    options = {**PATIENT, "save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path, **options, eval_patience=3).train()
    made = trainer(tmp_path, **options, eval_patience=2)
    # After the best one, which is of a later step than the checkpoint, is forgotten.
    (tmp_path / "best" / "best.json").write_text(
        json.dumps({"figure": "additions/avg@2", "value": 0.6, "step": 2})
    )
    made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert made.state.global_step == 4


def test_waiting_needs_a_figure(tmp_path):
    with pytest.raises(ValueError, match="eval_patience=2 waits for a figure to rise"):
        settings(tmp_path, **TASKS, eval_patience=2)


def test_a_resumed_run_waits_from_what_it_had_reached_at_its_checkpoint(tmp_path, monkeypatch):
    scripted_figures(monkeypatch, {0: 0.1, 1: 0.2, 2: 0.3, 3: 0.25, 4: 0.4, 5: 0.4, 6: 0.4})
    options = {**PATIENT, "save_strategy": "steps", "save_steps": 1, "eval_patience": 2}
    trainer(tmp_path, **options).train()
    # As a run leaves it that was killed after the third step, with its best student of the second.
    (tmp_path / "best" / "best.json").write_text(
        json.dumps({"figure": "additions/avg@2", "value": 0.3, "step": 2})
    )
    made = trainer(tmp_path, **options)
    made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert made.state.global_step == 6
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 4


@pytest.mark.parametrize("at", [2, 4])
def test_an_evaluation_for_which_a_signal_left_no_time_is_made_when_the_run_goes_on(tmp_path, at):
    class Signal(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == at - 1:
                signal.raise_signal(signal.SIGTERM)

    stopped = trainer(tmp_path, **STEPS)
    stopped.add_callback(Signal())
    with pytest.raises(Stopped):
        stopped.train()
    assert at not in evaluations(tmp_path)
    trainer(tmp_path, **STEPS).train("auto")
    assert list(evaluations(tmp_path)) == [0, 2, 4]


def test_a_run_that_waits_no_longer_ends_before_another_step(tmp_path, monkeypatch):
    scripted_figures(monkeypatch, RISES_AND_FALLS)
    options = {**PATIENT, "save_strategy": "steps", "save_steps": 1, "eval_patience": 1}
    trainer(tmp_path, **{**options, "eval_patience": None}).train()
    # As if a signal had left no time for the third evaluation.
    kept = [line for line in read_lines(tmp_path / "metrics.jsonl") if line["step"] < 3]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    (tmp_path / "best" / "best.json").write_text(
        json.dumps({"figure": "additions/avg@2", "value": 0.6, "step": 2})
    )
    made = trainer(tmp_path, **options)
    made.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert made.state.global_step == 3


def test_a_run_that_goes_on_is_evaluated_on_a_task_that_is_new_to_it_alone(tmp_path, monkeypatch):
    evaluated = []

    def evaluate_on(self, task, step):
        evaluated.append((step, task.name))
        return {"avg@2": 0.5}

    monkeypatch.setattr(TaskEvaluation, "_evaluate_on", evaluate_on)
    options = {**STEPS, "save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    trainer(tmp_path, **options).train()
    left = samples(tmp_path, 2).with_name("arithmetic.jsonl")
    left.parent.mkdir(parents=True)
    left.write_text("of other settings")
    evaluated.clear()
    trainer(tmp_path, **{**options, "eval_tasks": "additions,arithmetic"}).train("auto")
    assert evaluated == [(2, "arithmetic")] and not left.exists()


@pytest.mark.parametrize("left", [".partial", ".old"])
def test_a_best_student_that_lost_its_name_to_a_kill_has_it_back(tmp_path, monkeypatch, left):
    scripted_figures(monkeypatch, RISES_AND_FALLS)
    options = {**PATIENT, "max_steps": 3, "save_strategy": "steps", "save_steps": 3}
    trainer(tmp_path, **options).train()
    kept = (tmp_path / "best" / "model.safetensors").read_bytes()
    (tmp_path / "best").rename(tmp_path / f"best{left}")
    if left == ".old":
        # Of a step that the run goes back behind.
        newer = shutil.copytree(tmp_path / "best.old", tmp_path / "best.partial")
        record = json.loads((newer / "best.json").read_text())
        (newer / "best.json").write_text(json.dumps({**record, "step": 5}))
        (newer / "manifest.json").unlink()
        write_manifest(newer, {})
    trainer(tmp_path, **{**options, "max_steps": 4}).train("auto")
    assert (tmp_path / "best" / "model.safetensors").read_bytes() == kept
    assert json.loads((tmp_path / "best" / "best.json").read_text())["step"] == 2
