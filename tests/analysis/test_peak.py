"""What a run needs, told of its trainer before the first step."""

import pytest
from accelerate.utils import DistributedType
from peft import LoraConfig

from oprd.analysis.peak import estimate_run, longest_prompt
from oprd.core.output.divergence import JSD
from oprd.models.distributions import Distributions
from tests import tiny
from tests.models.built_tokenizers import sentencepiece
from tests.training.runs import LORA, PROMPTS, trainer


def test_the_longest_prompt_is_counted_in_tokens_as_the_student_reads_them(tmp_path):
    made = trainer(tmp_path)
    assert longest_prompt(made) == max(len(tiny.tokenizer()(text)["input_ids"]) for text in PROMPTS)


def test_a_run_needs_more_with_larger_batches_and_less_with_an_adapter(tmp_path):
    small = estimate_run(trainer(tmp_path, per_device_train_batch_size=2))
    large = estimate_run(trainer(tmp_path, per_device_train_batch_size=8))
    assert large.activations > 3 * small.activations and large.rows == 4 * small.rows
    assert large.rollout == 4 * small.rollout and large.weights == small.weights
    adapter = estimate_run(trainer(tmp_path, peft_config=LoraConfig(**LORA)))
    assert adapter.gradients < small.gradients / 5 and adapter.optimizer < small.optimizer / 5


def test_activations_are_in_the_precision_of_the_run(tmp_path):
    sizes = {"per_device_train_batch_size": 8, "max_completion_length": 64}
    whole, half = (
        estimate_run(trainer(tmp_path, bf16=is_half, **sizes)) for is_half in (False, True)
    )
    assert half.activations < 0.8 * whole.activations
    assert (half.weights, half.gradients) == (whole.weights, whole.gradients)


def test_trained_weights_are_there_twice_while_a_rate_is_found_for_them(tmp_path):
    plain, finds = (estimate_run(trainer(tmp_path, learning_rate=r)) for r in (0.1, "auto"))
    assert finds.copied == finds.gradients and finds.coming == plain.coming + finds.copied
    adapter = trainer(tmp_path, learning_rate="auto", peft_config=LoraConfig(**LORA))
    trained = sum(p.nbytes for p in adapter.student.parameters() if p.requires_grad)
    assert estimate_run(adapter).copied == trained
    # A run that goes on has its rate.
    assert estimate_run(adapter, resumes=True).copied == 0


def test_rollouts_of_a_whole_step_are_written_at_once(tmp_path):
    one = estimate_run(trainer(tmp_path, per_device_train_batch_size=2))
    several = estimate_run(
        trainer(tmp_path, per_device_train_batch_size=2, gradient_accumulation_steps=3)
    )
    assert several.rollout == 3 * one.rollout and several.rows == one.rows
    # The gradients of the first micro-batch wait while the others are read.
    assert several.activations > one.activations


def test_checkpoints_and_an_output_loss_are_those_of_the_training_to_come(tmp_path):
    plain, saving, output = (
        estimate_run(trainer(tmp_path, **options))
        for options in ({}, {"gradient_checkpointing": True}, {"output_loss": "reverse_kl"})
    )
    assert saving.activations < plain.activations
    assert output.distributions > plain.distributions == 0


def test_diagnostics_and_drift_read_distributions_that_no_loss_compares(tmp_path):
    for options in ({"diagnostics_steps": 1}, {"updates_per_rollout": 2}):
        made = trainer(tmp_path, **options, max_steps=2)
        rows = made.args.per_device_train_batch_size * made.args.max_completion_length
        expected = Distributions().held(made.student, made.readers, rows)
        assert estimate_run(made).distributions == expected > 0


def test_two_vocabularies_hold_both_s_logits_and_their_classes(tmp_path):
    reads_with = sentencepiece()
    teacher = tiny.reading(reads_with, seed=2)
    options = {"teacher_tokenizer": "own", "output_loss": "jsd"}
    made = trainer(tmp_path, teacher=teacher, reads_with=reads_with, **options)
    rows = made.args.per_device_train_batch_size * made.args.max_completion_length
    assert made.aligned is not None
    classes = made.aligned.classes.met.count
    expected = Distributions((JSD(),), classes).held(made.student, [teacher], rows)
    assert estimate_run(made).distributions == expected
    # More than over the student's vocabulary alone.
    assert expected > Distributions((JSD(),)).held(made.student, [teacher], rows)


def test_a_reference_and_several_teachers_count(tmp_path):
    alone = estimate_run(trainer(tmp_path))
    beyond = trainer(tmp_path, extrapolation=1.5, reference_model=tiny.model(seed=3))
    assert estimate_run(beyond).weights > 1.4 * alone.weights


def test_models_in_pieces_are_not_counted(tmp_path, monkeypatch):
    made = trainer(tmp_path)
    monkeypatch.setattr(made.args.distributed_state, "distributed_type", DistributedType.FSDP)
    with pytest.raises(ValueError, match="split over devices"):
        estimate_run(made)
