"""What is promised of a training step, and of what the student wrote for it."""

from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from oprd.core.reduction import supervised_count
from oprd.models.batch import MicroBatch
from oprd.models.generate import Request, Response
from oprd.models.metrics import StepStatistics
from oprd.models.vllm_engine import VllmEngine
from oprd.rollouts import counts
from oprd.rollouts.supervised import Rollouts
from tests import tiny
from tests.reliability.promise import Promise, Proof, nothing

TRAINER = "training/test_trainer.py"
DISTRIBUTED = "training/test_distributed.py"
FINITE = "guards/test_finite.py"
PROCESSES = "yes; two processes over gloo, on the CPU"

_of, _add = MicroBatch.of, StepStatistics.add
COUNTS = ("supervised_count", "response_count")


def filled_and_forgotten(
    self: Rollouts, prompt_ids: list, completions: list, *, fill: bool = True
) -> None:
    """An empty completion's end token is supervised like one that was written."""
    completions[:] = [ids or [self._ends[0]] for ids in completions]


def unlooked_at(_: VllmEngine, request: Request, output: Any, *rest: Any) -> Response:
    """Whatever an engine sends is taken for what was asked."""
    ids = list(output.outputs[0].token_ids)
    return Response(request, ids, "", output.outputs[0].finish_reason, 0.0)


def ends_taken_for_padding(output: dict[str, Any], args: Any) -> None:
    """As a mask made by comparing ids does."""
    counts.select(output, args)
    output["positions"] = output["positions"] & (output["completion_ids"] != tiny.EOS)


def counted_by_micro_batch(inputs: dict[str, Any], **options: Any) -> MicroBatch:
    own = {name: supervised_count(inputs["positions"]) for name in COUNTS}
    return _of({**inputs, **own}, **options)


def counted_by_columns(attention_mask: Tensor) -> Tensor:
    """Positions [B, T] as a model counts them that is told nothing."""
    return torch.arange(attention_mask.shape[1]).expand(attention_mask.shape)


def read_at_once(self: StepStatistics, sums: Mapping[str, Tensor]) -> None:
    """Of each micro-batch, in the place of once a step."""
    assert all(value.isfinite().all() for value in sums.values())
    _add(self, sums)


STEPS = (
    Promise(
        "NaN or infinity in weights, states, loss or gradient, on any rank",
        "all ranks stop before the step, naming what, where and on which rank; the student is as "
        "it was, and nothing hangs",
        (
            f"{TRAINER}::test_states_that_are_not_finite_stop_the_run_before_the_step",
            f"{TRAINER}::test_a_gradient_that_is_not_finite_stops_the_run_before_the_step",
            f"{TRAINER}::test_a_broken_student_is_named_before_it_writes",
            "training/test_output_losses.py"
            "::test_a_teachers_head_that_is_not_finite_stops_the_run_before_the_step",
            "models/test_bind.py"
            "::test_a_student_that_the_last_step_broke_is_neither_trained_nor_saved",
            f"{FINITE}::test_both_of_two_processes_say_on_which_rank_it_was",
        ),
        (
            Proof(
                f"{TRAINER}::test_states_that_are_not_finite_stop_the_run_before_the_step"
                "[nan-student]",
                {"oprd.guards.finite.Finite.check_sums": nothing},
            ),
            Proof(
                f"{TRAINER}::test_a_gradient_that_is_not_finite_stops_the_run_before_the_step[1.0]",
                {"oprd.guards.finite.Finite.check_norm": nothing},
            ),
            Proof(
                "models/test_bind.py"
                "::test_a_student_that_the_last_step_broke_is_neither_trained_nor_saved",
                {"oprd.guards.finite.Finite.check_student": nothing},
            ),
            Proof(
                f"{DISTRIBUTED}::test_a_broken_teacher_in_one_process_stops_both",
                {"oprd.guards.finite.Finite.check_sums": nothing},
                minutes=1,
            ),
        ),
        f"{PROCESSES}; DeepSpeed no",
    ),
    Promise(
        "a step that is not finite",
        "its batch is kept with the student that met it, for `oprd doctor --replay`",
        (
            f"{FINITE}::test_the_batch_is_kept_with_the_student_that_met_it",
            f"{FINITE}::test_a_batch_that_finds_no_room_does_not_hide_what_broke",
            "guards/test_broken.py::test_a_batch_is_read_as_it_was_written_without_what_is_no_tensor",
        ),
        (
            Proof(
                f"{FINITE}::test_the_batch_is_kept_with_the_student_that_met_it",
                {"oprd.guards.finite.Finite._keep": lambda *_, **__: ""},
                error="FileNotFoundError",
            ),
        ),
    ),
    Promise(
        "states that are all zero, compared at unit length",
        "a finite loss and gradient",
        (
            "core/states/test_distance.py"
            "::test_a_zero_state_at_unit_length_gives_a_finite_loss_and_gradient",
            "core/states/test_invariance.py::test_a_zero_state_gives_a_finite_loss_and_gradient",
            "models/test_scales.py::test_a_teacher_whose_states_are_all_zero_gives_a_finite_loss",
        ),
        (
            Proof(
                "core/states/test_distance.py"
                "::test_a_zero_state_at_unit_length_gives_a_finite_loss_and_gradient",
                {"oprd.core.states.distance.unit_divisor": lambda norm: norm[:, None]},
            ),
        ),
    ),
    Promise(
        "a response that is empty, all of them, or all of one process",
        "it counts for nothing and is counted; the loss is a finite zero with a graph, and "
        "processes stay together",
        (
            f"{TRAINER}::test_an_empty_rollout_counts_for_nothing",
            f"{TRAINER}::test_rollouts_that_are_all_empty_give_a_zero_loss_and_no_step",
            "training/test_output_losses.py"
            "::test_rollouts_that_are_all_empty_give_a_zero_loss_and_no_step",
            "core/test_objective.py::test_nothing_supervised_is_a_finite_zero_with_a_graph",
            f"{DISTRIBUTED}::test_two_processes_take_the_step_of_one",
        ),
        (
            Proof(
                f"{TRAINER}::test_rollouts_that_are_all_empty_give_a_zero_loss_and_no_step",
                {"oprd.rollouts.supervised.Rollouts.receive": filled_and_forgotten},
            ),
        ),
        PROCESSES,
    ),
    Promise(
        "a response of the end token alone",
        "the state that predicts it is supervised once, and nothing after it",
        (
            f"{TRAINER}::test_a_rollout_of_eos_alone_is_supervised_once",
            f"{TRAINER}::test_predicting_rows_stand_one_column_before_their_tokens",
        ),
        (
            Proof(
                f"{TRAINER}::test_a_rollout_of_eos_alone_is_supervised_once",
                {"oprd.rollouts.supervised.select": ends_taken_for_padding},
            ),
        ),
    ),
    Promise(
        "no padding token, or the end token in its place",
        "masks come from lengths: an end that was written stays supervised",
        (
            f"{TRAINER}::test_an_eos_stays_supervised_where_padding_is_none_or_the_eos_itself",
            "models/test_generate.py::test_padding_is_no_repetition",
        ),
        (
            Proof(
                f"{TRAINER}::test_an_eos_stays_supervised_where_padding_is_none_or_the_eos_itself"
                "[<eos>]",
                {"oprd.rollouts.supervised.select": ends_taken_for_padding},
            ),
        ),
    ),
    Promise(
        "left padding of any width: GPT-2, OPT, Llama, Qwen2, Qwen3, NeoX",
        "states, loss and step are those without it",
        (
            f"{TRAINER}::test_left_padding_does_not_matter",
            "models/test_architectures.py::test_the_most_used_models_are_read_rightly",
        ),
        (
            Proof(
                f"{TRAINER}::test_left_padding_does_not_matter[gpt2]",
                {"oprd.models.reading.position_ids": counted_by_columns},
                error="ValueError",
            ),
        ),
        "in float64, on the CPU",
    ),
    Promise(
        "any split into micro-batches, order of rows, or number of processes",
        "loss and gradient are the same, to 1e-6",
        (
            f"{TRAINER}::test_any_split_into_micro_batches_takes_the_same_step",
            f"{TRAINER}::test_the_order_of_rows_does_not_matter",
            "training/test_output_losses.py"
            "::test_an_output_loss_takes_the_same_step_however_the_batch_is_laid_out",
            f"{DISTRIBUTED}::test_two_processes_take_the_step_of_one",
            f"{DISTRIBUTED}::test_two_processes_under_fsdp2_have_the_gradients_of_one",
        ),
        (
            Proof(
                f"{TRAINER}::test_any_split_into_micro_batches_takes_the_same_step",
                {"oprd.models.batch.MicroBatch.of": counted_by_micro_batch},
            ),
            Proof(
                f"{DISTRIBUTED}::test_two_processes_take_the_step_of_one[plain]",
                {
                    "oprd.training.trainer.OPRDTrainer._summed": lambda self, values: values,
                },
                minutes=1,
            ),
        ),
        "one process and two, DDP and FSDP2 over gloo, on the CPU; CUDA and DeepSpeed no",
    ),
    Promise(
        "tied weights, of which a checkpoint holds one",
        "they stay tied, and none is missed",
        (
            "training/test_resume.py"
            "::test_tied_weights_of_which_a_checkpoint_holds_one_are_not_missed",
            "models/test_adapters.py::test_tied_weights_that_no_adapter_touches_stay_tied",
        ),
        (
            Proof(
                "training/test_resume.py"
                "::test_tied_weights_of_which_a_checkpoint_holds_one_are_not_missed[False]",
                {
                    "oprd.training.trainer.OPRDTrainer._issue_warnings_after_load": (
                        transformers.Trainer._issue_warnings_after_load
                    ),
                },
            ),
        ),
    ),
    Promise(
        "a rollout engine that returns fewer completions, others, or longer ones",
        "an error with both counts or lengths, never a silently smaller batch",
        (
            f"{TRAINER}::test_an_engine_that_loses_rollouts_is_an_error_with_counts",
            "rollouts/test_supervised.py"
            "::test_a_number_of_completions_that_was_not_asked_for_is_refused_with_both",
            "rollouts/test_supervised.py"
            "::test_a_completion_longer_than_was_asked_for_is_refused_with_both_lengths",
            "models/test_rollout_engine.py"
            "::test_completions_of_other_prompts_are_an_error_that_says_which",
            "evaluation/test_evaluate.py"
            "::test_fewer_responses_than_asked_for_are_an_error_and_kept",
            "evaluation/test_evaluate.py::test_responses_nobody_asked_for_are_an_error",
            "models/test_load.py::test_vllm_that_leaves_responses_out_is_an_error",
        ),
        (
            Proof(
                "rollouts/test_supervised.py"
                "::test_a_number_of_completions_that_was_not_asked_for_is_refused_with_both",
                {"oprd.rollouts.supervised.Rollouts.receive": filled_and_forgotten},
            ),
            Proof(
                "rollouts/test_supervised.py"
                "::test_a_completion_longer_than_was_asked_for_is_refused_with_both_lengths",
                {"oprd.rollouts.supervised.check_completions": nothing},
            ),
            Proof(
                "models/test_load.py::test_vllm_that_leaves_responses_out_is_an_error",
                {"oprd.models.vllm_engine.VllmEngine._response": unlooked_at},
            ),
        ),
        "with a stand-in for vLLM",
    ),
    Promise(
        "looking whether a step is finite",
        "waits for the device no more often than a step does anyhow",
        (f"{FINITE}::test_looking_at_a_micro_batch_does_not_wait_for_the_device",),
        (
            Proof(
                f"{FINITE}::test_looking_at_a_micro_batch_does_not_wait_for_the_device",
                {"oprd.training.trainer.StepStatistics.add": read_at_once},
            ),
        ),
        "counted, not timed; `benchmarks/` times it",
    ),
)
