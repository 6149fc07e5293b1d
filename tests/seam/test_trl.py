"""The places of TRL and Transformers that the trainer builds on. One that moves fails by name."""

import inspect

import torch
import trl
from packaging.version import Version
from transformers import Trainer
from trl.distributed import DistributedBackend
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.distillation_trainer import DistillationTrainer
from trl.trainer.utils import RepeatSampler, shuffle_sequence_dict, split_tensor_dict

from tests.training import runs


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_the_version_is_the_one_the_seam_was_written_for():
    assert Version("1.16") <= Version(trl.__version__) < Version("1.17")


def test_the_methods_that_are_overridden_have_their_signatures():
    assert parameters(DistillationTrainer._compute_loss) == [
        "self",
        "unwrapped_student",
        "inputs",
        "num_items_in_batch",
    ]
    assert parameters(DistillationTrainer.compute_loss) == [
        "self",
        "model",
        "inputs",
        "return_outputs",
        "num_items_in_batch",
    ]
    assert parameters(DistillationTrainer._generate_and_score_completions) == ["self", "inputs"]
    assert parameters(DistillationTrainer._generate_single_turn)[:2] == ["self", "prompt_ids"]
    assert parameters(DistillationTrainer._get_train_sampler) == ["self", "dataset"]
    assert parameters(DistillationTrainer._prepare_inputs) == ["self", "generation_batch"]
    assert parameters(DistillationTrainer._tokenize_prompts) == ["self", "prompts"]
    assert parameters(Trainer._get_grad_norm) == ["self", "model", "grad_norm"]
    assert parameters(Trainer._save) == ["self", "output_dir", "state_dict"]


def test_what_evaluates_the_student_while_it_trains_is_there():
    assert parameters(unwrap_model_for_generation)[:3] == [
        "model",
        "accelerator",
        "gather_deepspeed3_params",
    ]
    assert "gradient_checkpointing_kwargs" in parameters(unwrap_model_for_generation)
    assert parameters(DistributedBackend.summon_full_params)[:2] == ["self", "module"]
    assert parameters(Trainer.save_model) == ["self", "output_dir", "_internal_call"]
    assert parameters(Trainer.log) == ["self", "logs", "start_time"]


def test_the_loss_is_not_scaled_again_for_accumulation():
    assert DistillationTrainer.loss_is_scaled_for_ga is True


def test_the_gradient_norm_is_taken_before_the_optimizer_steps():
    source = inspect.getsource(Trainer._run_epoch)
    assert source.index("_get_grad_norm(") < source.index("self.optimizer.step()")


def test_a_generation_batch_has_the_keys_that_are_read(tmp_path):
    made = runs.trainer(tmp_path)
    batch = made._prepare_inputs([{"prompt": prompt} for prompt in runs.PROMPTS[:4]])
    assert set(batch) == {
        "prompt_ids",
        "prompt_mask",
        "completion_ids",
        "completion_mask",
        "num_items_in_batch",
        "positions",
        "supervised_count",
        "response_count",
    }


def test_positions_are_shuffled_and_split_with_their_rows_and_counts_are_kept():
    batch = {
        "ids": torch.arange(4)[:, None],
        "positions": torch.arange(4)[:, None],
        "count": torch.tensor(4.0),
    }
    for part in split_tensor_dict(shuffle_sequence_dict(batch), 2):
        assert torch.equal(part["ids"], part["positions"])
        assert part["count"] == 4


def test_the_sampler_keeps_what_is_passed_on():
    sampler = RepeatSampler(range(4), 1, batch_size=2, repeat_count=3, shuffle=True, seed=5)
    kept = (sampler.batch_size, sampler.repeat_count, sampler.shuffle, sampler.seed)
    assert kept == (2, 3, True, 5)
