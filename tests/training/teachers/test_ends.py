"""A student and a teacher that stop at different tokens, in whole runs."""

import pytest
import torch
from peft import LoraConfig
from transformers import GenerationConfig

from oprd.models.export import export_model
from tests import tiny
from tests.training import runs
from tests.training.runs import LORA, largest_difference, scripted, trainer, weights

TURN = tiny.tokenizer().convert_tokens_to_ids("<user>")


def teacher(*ends):
    made = tiny.model(seed=2)
    made.generation_config.eos_token_id = list(ends)
    return made


def half_turned(ids):
    """Rollouts of which every other one ends in the teacher's token."""
    response = scripted(ids)
    return [*response[:-1], TURN] if len(ids) % 2 and response[-1] == tiny.EOS else response


def run(folder, *ends, **options):
    plain = {"shuffle_dataset": False, "per_device_train_batch_size": 8, "optim": "adamw_torch"}
    return trainer(folder, teacher=teacher(*ends), **{**plain, **options})


def test_rollouts_stop_at_either_and_the_student_is_saved_so(tmp_path, caplog):
    made = run(tmp_path, TURN)
    assert made.eos_token_ids == made.generation_config.eos_token_id == [tiny.EOS, TURN]
    assert "The student stops at <eos> (end of text), and the teacher at" in caplog.text
    made.train()
    made.save_model(str(tmp_path / "saved"))
    assert GenerationConfig.from_pretrained(tmp_path / "saved").eos_token_id == [tiny.EOS, TURN]


@pytest.mark.parametrize("lora", [False, True])
def test_an_exported_student_stops_at_either(tmp_path, lora):
    base, saved, output = (tmp_path / name for name in ("base", "saved", "exported"))
    tiny.model(seed=1).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    adapter = LoraConfig(**LORA) if lora else None
    made = run(tmp_path / "run", TURN, student=str(base), peft_config=adapter)
    made.train()
    made.save_model(str(saved))
    output.mkdir()
    export_model(saved, output, original=str(base))
    assert GenerationConfig.from_pretrained(output).eos_token_id == [tiny.EOS, TURN]


def test_a_response_that_the_engine_writes_ends_at_the_teachers_token(tmp_path):
    student = tiny.model(seed=1)
    # After any token it writes the teacher's end.
    student.lm_head.weight.data.zero_()
    student.lm_head.weight.data[TURN] = 0
    made = run(tmp_path, TURN, student=student, rollout=None, temperature=0.01)
    student.lm_head.weight.data[TURN] = 50 * last_state(student)
    completions = made._generate_single_turn([[65, 66]], None, {})
    assert completions == [[TURN]]


def last_state(model):
    with torch.no_grad():
        states = model(torch.tensor([[65, 66]]), output_hidden_states=True).hidden_states
    return states[-1][0, -1]


def test_the_ways_that_responses_end_are_logged_apart(tmp_path):
    texts = {"": 0, "The answer is 4.": 1, r"\boxed{2}": 1, "no": 0}
    written = [
        [*tiny.tokenizer()(text)["input_ids"], *([TURN] if n % 2 else [])]
        for n, text in enumerate(texts)
    ]
    script = iter(written * 10)
    made = run(
        tmp_path,
        TURN,
        rollout=lambda ids: next(script),
        per_device_train_batch_size=4,
        max_completion_length=32,
    )
    made.train()
    logged = made.state.log_history[0]
    assert logged["completions/empty_ratio"] == 0.25
    assert logged["completions/stopped_ratio"] == 0.5
    assert logged["completions/cut_ratio"] == 0.25
    assert logged["completions/answer_ratio"] == 0.5


@pytest.mark.parametrize("loss", ["sampled", "reverse_kl", "topk"])
def test_output_losses_take_both_ends_for_one(tmp_path, loss):
    options = {"output_loss": loss, "representation_weight": 0.0, "rollout": half_turned}
    joined = run(tmp_path / "joined", TURN, **options)
    own = run(tmp_path / "own", TURN, end_tokens="student", **options)
    for made in (joined, own):
        made.train()
    assert largest_difference(weights(joined.student), weights(own.student)) > 1e-6


@pytest.mark.parametrize(
    "options",
    [{"end_tokens": "student"}, {"generation_kwargs": {"eos_token_id": tiny.EOS}}],
)
def test_the_student_keeps_its_own_ends_where_that_is_asked(tmp_path, options, caplog):
    made = run(tmp_path, TURN, **options)
    assert made.eos_token_ids == [tiny.EOS]
    assert "The student stops at" not in caplog.text


def test_ends_of_a_teacher_whose_ids_are_unknown_are_not_joined(tmp_path, monkeypatch):
    made = runs.OPRDTrainer(
        model=tiny.model(seed=1),
        teacher_model=teacher(TURN),
        args=runs.settings(tmp_path),
        train_dataset=runs.Dataset.from_dict({"prompt": runs.PROMPTS}),
        processing_class=tiny.tokenizer(),
    )
    assert made.eos_token_ids == [tiny.EOS]
