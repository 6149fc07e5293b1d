"""What TRL and Transformers do where the trainer builds on them; `test_contract.py` has where."""

import inspect

import torch
import trl
from packaging.version import Version
from transformers import Trainer
from trl.trainer.distillation_trainer import DistillationTrainer
from trl.trainer.utils import RepeatSampler, shuffle_sequence_dict, split_tensor_dict

from tests.training import runs


def test_the_version_is_the_one_the_seam_was_written_for():
    assert Version("1.16") <= Version(trl.__version__) < Version("1.17")


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
