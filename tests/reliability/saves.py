"""What is promised of saving a run, ending it and going on with it."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import transformers

from oprd.guards.saving import Checkpoints
from oprd.guards.signals import Interruption
from oprd.runs.record import add_to_record
from oprd.training.callbacks import RunRecorder
from oprd.training.trainer import OPRDTrainer
from tests.reliability.promise import Promise, Proof, nothing

SAVING = "guards/test_saving.py"
SIGNALS = "guards/test_signals.py"
SPACE = "guards/test_space.py"
LOCK = "runs/test_lock.py"
CHECKPOINTS = "runs/test_checkpoints.py"
MANIFEST = "runs/test_manifest.py"
IDENTITY = "runs/test_identity.py"
CURRICULUM = "rollouts/test_curriculum.py"
GOING_ON = "cli/test_going_on.py"
PROCESSES = "yes; two processes over gloo"


def as_transformers_runs_an_epoch(self: OPRDTrainer, *args: Any, **kwargs: Any) -> None:
    transformers.Trainer._run_epoch(self, *args, **kwargs)


def written_at_once(self: RunRecorder, folder: Path, facts: Any, *, write: bool) -> None:
    """Into whatever record is there."""
    add_to_record(folder, facts)


def with_a_checkpoint(self: Interruption) -> str:
    return "the run ends after this step, with a checkpoint"


def push_at_once(self: Checkpoints, checkpoint: Path, push: Callable[[str], None]) -> None:
    push(str(checkpoint))


SAVES = (
    Promise(
        "a kill (SIGKILL) at any point, of a save too",
        "the run goes on from the newest complete checkpoint, names what it skipped, and ends with "
        "the weights of a run that was never killed, bit for bit",
        (
            f"{SAVING}::test_a_save_that_is_cut_off_anywhere_is_skipped_and_named",
            f"{SAVING}::test_a_run_killed_in_its_last_save_ends_where_it_should",
            "soak/test_soak.py::test_a_run_that_is_killed_again_and_again_ends_as_one_that_is_not",
        ),
        (
            Proof(
                f"{SAVING}::test_a_save_that_is_cut_off_anywhere_is_skipped_and_named"
                "[write_manifest]",
                {
                    "oprd.runs.checkpoints.problem": nothing,
                    "oprd.runs.checkpoints._is_cut_off": lambda checkpoint: False,
                },
                error="KeyError",
            ),
        ),
        PROCESSES,
    ),
    Promise(
        "any moment of a save",
        "a checkpoint counts once all processes have saved and every file is hashed, not before",
        (
            f"{SAVING}::test_a_checkpoint_is_not_complete_before_its_files_are_hashed",
            f"{SAVING}::test_of_two_processes_a_checkpoint_holds_both",
            "runs/test_manifest.py::test_a_manifest_is_on_the_disk_after_the_files_that_it_names",
        ),
        (
            Proof(
                f"{SAVING}::test_a_checkpoint_is_not_complete_before_its_files_are_hashed",
                {"oprd.guards.saving.begin_checkpoint": lambda folder: folder.mkdir()},
            ),
            Proof(
                "runs/test_manifest.py"
                "::test_a_manifest_is_on_the_disk_after_the_files_that_it_names",
                {"oprd.runs.manifest.synchronize": nothing},
            ),
        ),
        "kills yes, two processes over gloo; power loss no",
    ),
    Promise(
        "a truncated, empty, garbled or deleted file of a checkpoint",
        "`auto` skips the checkpoint and says why; by its path it is refused, with the file named",
        (
            f"{SAVING}::test_of_a_damaged_checkpoint_nothing_is_loaded",
            f"{CHECKPOINTS}::test_auto_names_in_one_line_what_it_skipped_and_why",
            f"{CHECKPOINTS}::test_a_damaged_checkpoint_is_refused_by_its_path_and_the_file_named",
            f"{CHECKPOINTS}::test_auto_refuses_to_start_anew_where_all_checkpoints_are_damaged",
        ),
        (
            Proof(
                f"{SAVING}::test_of_a_damaged_checkpoint_nothing_is_loaded[cut-optimizer.pt]",
                {"oprd.runs.manifest._difference": nothing},
            ),
        ),
    ),
    Promise(
        "bytes that have changed in a file of a checkpoint",
        "its hash in the manifest shows it, in training and in evaluation",
        (
            f"{SAVING}::test_of_a_damaged_checkpoint_nothing_is_loaded",
            "runs/test_manifest.py::test_every_damage_is_seen_and_its_file_named",
            "models/test_load.py::test_a_checkpoint_whose_bytes_have_changed_is_not_evaluated",
        ),
        (
            Proof(
                f"{SAVING}::test_of_a_damaged_checkpoint_nothing_is_loaded"
                "[flipped-model.safetensors]",
                {"oprd.runs.manifest._hash": lambda file: "0" * 64},
            ),
            Proof(
                "models/test_load.py::test_a_checkpoint_whose_bytes_have_changed_is_not_evaluated",
                {"oprd.runs.manifest._hash": lambda file: "0" * 64},
            ),
        ),
    ),
    Promise(
        "a full disk, or a limit on files",
        "room is looked for before the first step and before each save; what is missing is named "
        "with path and bytes, the checkpoint before is kept, and the half one is removed",
        (
            f"{SPACE}::test_a_run_without_room_for_a_checkpoint_ends_before_its_first_step",
            f"{SPACE}::test_room_is_looked_for_before_each_save",
            f"{SPACE}::test_a_save_that_fails_is_named_and_swept_and_the_run_goes_on_from_the_one_"
            "before",
            f"{SPACE}::test_room_is_looked_for_when_what_is_to_be_deleted_is",
            f"{SPACE}::test_a_run_that_saves_no_checkpoint_needs_room_for_its_student",
            f"{SPACE}::test_all_processes_stop_where_one_has_no_room",
            f"{SPACE}::test_a_disk_that_is_full_keeps_the_checkpoint_before",
        ),
        (
            Proof(
                f"{SPACE}::test_a_run_without_room_for_a_checkpoint_ends_before_its_first_step",
                {"oprd.guards.space.shortage": nothing},
            ),
            Proof(
                f"{SPACE}::test_room_is_looked_for_before_each_save",
                {"oprd.guards.space.shortage": nothing},
            ),
            Proof(
                f"{SPACE}::test_a_save_that_fails_is_named_and_swept_and_the_run_goes_on_from_the_"
                "one_before[_save]",
                {"oprd.guards.space.disk_problem": nothing},
            ),
        ),
        PROCESSES,
    ),
    Promise(
        "an output directory that cannot be written to, or vanishes",
        "an error with the way out, before models are loaded; later on, where it vanished",
        (
            "test_names.py::test_an_output_directory_below_a_file_is_refused",
            "test_names.py::test_a_read_only_output_directory_is_refused",
            "cli/test_train.py::test_what_cannot_work_is_one_sentence_before_models_are_loaded",
            "cli/test_train.py::test_what_the_machine_refuses_to_write_is_one_sentence_with_the_"
            "folder_and_the_way_on",
        ),
        (
            Proof(
                "cli/test_train.py::test_what_cannot_work_is_one_sentence_before_models_are_loaded"
                "[arguments2-run.yaml' cannot be written to]",
                {"oprd.cli.train.check_output_dir": Path},
            ),
        ),
        "yes; a read-only folder only where tests are not run by root",
    ),
    Promise(
        "two runs in one output directory",
        "the second is refused, with process and machine of the first; what a killed run left "
        "stands in nobody's way",
        (
            f"{SAVING}::test_a_folder_in_which_another_run_trains_is_refused",
            f"{GOING_ON}::test_a_second_run_in_a_folder_is_refused_before_models_load",
            f"{LOCK}::test_what_a_killed_run_leaves_stands_in_nobodys_way",
            f"{LOCK}::test_of_many_that_begin_at_once_one_has_the_folder",
            f"{LOCK}::test_of_two_that_find_the_lock_of_a_dead_run_one_has_the_folder",
        ),
        (
            Proof(
                f"{LOCK}::test_of_two_that_find_the_lock_of_a_dead_run_one_has_the_folder[False]",
                {"oprd.runs.lock._alone": lambda path: nullcontext()},
            ),
            Proof(
                f"{SAVING}::test_a_folder_in_which_another_run_trains_is_refused",
                {"oprd.runs.lock.try_lock": lambda file: True},
            ),
        ),
    ),
    Promise(
        "a run begun anew in the folder of another",
        "it is refused where there are checkpoints; `--overwrite` deletes what the earlier run's "
        "record and manifests name, and nothing else, once nothing can refuse the new one",
        (
            f"{GOING_ON}::test_a_new_run_among_the_checkpoints_of_another_is_refused_before_models_"
            "load",
            f"{GOING_ON}::test_overwriting_replaces_the_run_and_leaves_what_is_not_its_own",
            f"{SAVING}::test_a_run_begun_anew_over_another_leaves_none_of_its_checkpoints",
            f"{CHECKPOINTS}::test_overwriting_deletes_what_the_run_names_and_nothing_else",
            f"{SPACE}::test_a_run_is_overwritten_when_there_is_room_for_another_and_not_before",
            f"{SAVING}::test_a_run_that_is_refused_leaves_the_record_of_the_one_before",
        ),
        (
            Proof(
                f"{SAVING}::test_in_python_a_checkpoint_means_what_it_means_on_a_command_line",
                {"oprd.runs.beginning.check_may_start_anew": nothing},
            ),
            Proof(
                f"{SAVING}::test_a_run_begun_anew_over_another_leaves_none_of_its_checkpoints",
                {"oprd.guards.saving.clear_run": lambda *_: []},
            ),
            Proof(
                f"{SPACE}::test_a_run_is_overwritten_when_there_is_room_for_another_and_not_before",
                {"oprd.guards.space.shortage": nothing},
            ),
            Proof(
                f"{SAVING}::test_a_run_that_is_refused_leaves_the_record_of_the_one_before",
                {"oprd.training.callbacks.RunRecorder.add": written_at_once},
            ),
        ),
    ),
    Promise(
        "a student that is saved where another one stands, such as an adapter",
        "weights and adapters that the earlier manifest names and the save does not write are "
        "deleted, and nothing else, so that the new one is loaded",
        (
            f"{MANIFEST}::test_a_student_that_a_save_takes_the_place_of_is_gone_and_nothing_else",
            f"{MANIFEST}::test_it_is_gone_too_where_a_save_between_was_cut_off",
            f"{MANIFEST}::test_the_same_student_saved_again_at_once_is_all_there",
            f"{MANIFEST}::test_a_card_and_what_stands_apart_outlive_a_save",
            f"{MANIFEST}::test_nothing_is_deleted_for_a_manifest_that_is_damaged",
        ),
        (
            Proof(
                f"{MANIFEST}::test_a_student_that_a_save_takes_the_place_of_is_gone_and_nothing_else[adapter]",
                {"oprd.runs.manifest._delete": nothing},
            ),
        ),
    ),
    Promise(
        "any umask",
        "whatever is saved has the mode that it gives",
        (
            f"{SAVING}::test_whatever_is_saved_has_the_mode_that_the_umask_gives",
            "core/bridge/test_file.py::test_the_files_mode_honours_the_umask",
            "guards/test_broken.py::test_a_batch_can_be_read_by_whom_the_umask_lets",
            "runs/test_atomic.py::test_to_ask_for_the_umask_does_not_change_it_for_other_threads",
        ),
        (
            Proof(
                f"{SAVING}::test_whatever_is_saved_has_the_mode_that_the_umask_gives[False]",
                {"oprd.guards.saving.give_usual_mode": nothing},
            ),
        ),
    ),
    Promise(
        "`save_total_limit`",
        "complete checkpoints alone are counted, and deleted after the newer one is complete; the "
        "best and the last one stay",
        (
            f"{SAVING}::test_complete_checkpoints_alone_are_counted_and_deleted",
            f"{SAVING}::test_the_last_checkpoint_stays_beside_the_best",
            f"{CHECKPOINTS}::test_rotation_keeps_what_was_saved_last_not_the_highest_step",
        ),
        (
            Proof(
                f"{SAVING}::test_complete_checkpoints_alone_are_counted_and_deleted",
                {"oprd.guards.saving.rotate": nothing},
            ),
        ),
    ),
    Promise(
        "SIGTERM or Ctrl-C",
        "the step is finished and saved, in all processes the same one, and the exit code is 143 "
        "or 130; a second signal ends the run at once; after the last step no checkpoint is "
        "promised",
        (
            f"{SIGNALS}::test_a_signal_ends_a_run_after_its_step_and_it_goes_on_bit_identically",
            f"{SIGNALS}::test_a_second_signal_ends_a_run_at_once",
            f"{SIGNALS}::test_a_signal_to_one_of_two_processes_ends_both_after_the_same_step",
            f"{SIGNALS}::test_a_signal_after_the_last_step_is_not_answered_with_a_checkpoint",
            f"{SIGNALS}::test_a_process_that_was_forked_to_load_data_takes_no_signal_for_the_run",
            "cli/test_train.py::test_a_signal_prints_one_line_with_the_command_that_goes_on",
        ),
        (
            Proof(
                f"{SIGNALS}::test_a_signal_ends_a_run_after_its_step_and_it_goes_on_bit_identically"
                "[15-options0-2]",
                {"oprd.guards.signals.Interruption.on_step_end": nothing},
            ),
            Proof(
                f"{SIGNALS}::test_a_signal_after_the_last_step_is_not_answered_with_a_checkpoint"
                "[on_epoch_end]",
                {"oprd.guards.signals.Interruption._answer": with_a_checkpoint},
            ),
        ),
        PROCESSES,
    ),
    Promise(
        "going on after k of n steps, within an accumulation or an epoch, with dropout, an "
        "adapter, a bridge, several updates a rollout, rollouts of earlier steps, prompts that "
        "were drawn, a rate that was found",
        "the weights are those of n steps in one go, bit for bit",
        (
            "training/test_resume.py"
            "::test_a_resumed_run_ends_with_the_weights_of_one_never_stopped",
            "training/test_bridges.py"
            "::test_a_resumed_run_ends_with_the_weights_of_one_never_stopped",
            "training/test_rollouts_ahead.py::test_a_resumed_run_ends_bit_identical",
            "training/test_teacher_prefix.py::test_a_resumed_run_ends_bit_identical",
            "training/test_replay.py::test_a_resumed_run_ends_bit_identical",
            "training/test_curriculum.py::test_a_resumed_run_ends_bit_identical",
            "calibration/test_rate_search.py::test_a_resumed_run_keeps_the_rate_that_was_found",
        ),
        (
            Proof(
                "training/test_resume.py"
                "::test_a_resumed_run_ends_with_the_weights_of_one_never_stopped[plain]",
                {
                    "oprd.training.trainer.OPRDTrainer._load_optimizer_and_scheduler": nothing,
                },
            ),
            Proof(
                "training/test_replay.py::test_a_resumed_run_ends_bit_identical[options0]",
                {"oprd.rollouts.replay.Replay.resume": nothing},
            ),
            Proof(
                "training/test_curriculum.py::test_a_resumed_run_ends_bit_identical[options0]",
                {"oprd.rollouts.curriculum.Curriculum.resume": nothing},
            ),
        ),
    ),
    Promise(
        "going on with a run that has ended, or with fewer steps than it has",
        "no step more is trained; the fewer are refused",
        (
            f"{SAVING}::test_a_run_that_has_ended_trains_no_step_more",
            f"{SAVING}::test_fewer_steps_than_the_checkpoint_has_are_refused",
        ),
        (
            Proof(
                f"{SAVING}::test_a_run_that_has_ended_trains_no_step_more[options2]",
                {
                    "oprd.training.trainer.OPRDTrainer._run_epoch": as_transformers_runs_an_epoch,
                },
            ),
        ),
    ),
    Promise(
        "going on with another teacher, student, layers, positions, loss, bridge or optimizer",
        "an error, from any folder, unless `--allow_changed` names it, which the record then says",
        (
            f"{SAVING}::test_a_run_does_not_go_on_as_another_from_any_folder",
            f"{SAVING}::test_what_is_allowed_to_change_does_and_stands_in_the_record",
            f"{SAVING}::test_of_two_processes_both_refuse_what_one_of_them_finds",
            "training/test_bridges.py::test_a_run_does_not_go_on_through_another_bridge",
            "runs/test_identity.py::test_every_setting_that_a_run_keeps_is_tried_here",
            "runs/test_identity.py::test_every_setting_is_of_one_class_on_a_resume",
            "runs/test_identity.py"
            "::test_an_adapter_that_computes_otherwise_is_another_whatever_its_options_were",
        ),
        (
            Proof(
                f"{SAVING}::test_a_run_does_not_go_on_as_another_from_any_folder[teacher-options0]",
                {"oprd.runs.beginning.check_changes": nothing},
            ),
            Proof(
                "runs/test_identity.py"
                "::test_an_adapter_that_computes_otherwise_is_another_whatever_its_options_were"
                "[use_rslora-False-True]",
                {"oprd.runs.identity._same": lambda *_: True},
            ),
            Proof(
                f"{SAVING}::test_of_two_processes_both_refuse_what_one_of_them_finds",
                {"oprd.runs.beginning.check_changes": nothing},
                minutes=1,
            ),
        ),
        PROCESSES,
    ),
    Promise(
        "going on with other prompts, schedule, seed or number of processes",
        "a warning with both values; a changed rate is used",
        (
            f"{SAVING}::test_what_may_change_with_a_word_does",
            f"{SAVING}::test_a_changed_learning_rate_is_used",
            f"{SAVING}::test_changed_settings_of_the_optimizer_are_used",
            "runs/test_identity.py::test_other_prompts_and_processes_are_said_and_not_refused",
        ),
        (
            Proof(
                f"{SAVING}::test_what_may_change_with_a_word_does[dataset-options0]",
                {"oprd.runs.beginning.changes": lambda *_: []},
            ),
            Proof(
                f"{SAVING}::test_a_changed_learning_rate_is_used",
                {"oprd.guards.saving.Checkpoints.own_rates": lambda self: nullcontext()},
            ),
        ),
    ),
    Promise(
        "going on to another number of steps, where something changes over a share of them",
        "it is told as what is changed by it, with both numbers of steps: a loss's weight is "
        "refused, what is written is a warning",
        (
            f"{IDENTITY}::test_a_share_of_a_run_that_is_longer_now_is_told_as_another",
            f"{IDENTITY}::test_what_changes_over_steps_or_in_a_run_of_the_same_length_is_the_same",
            f"{IDENTITY}::test_every_setting_that_changes_over_a_run_is_compared_in_steps",
        ),
        (
            Proof(
                f"{IDENTITY}::test_a_share_of_a_run_that_is_longer_now_is_told_as_another"
                "[given0-representation_weight]",
                {"oprd.runs.identity.in_steps": lambda given, length, least=0: given},
                error="ValueError",
            ),
        ),
    ),
    Promise(
        "going on with other prompts, or fewer, under a curriculum",
        "it begins anew; rollouts that are kept of prompts that are gone say nothing of those that "
        "are there",
        (
            f"{CURRICULUM}::test_of_other_prompts_or_without_a_file_it_begins_anew",
            f"{CURRICULUM}"
            "::test_of_as_many_other_prompts_it_begins_anew_and_of_the_same_ones_it_goes_on",
            f"{CURRICULUM}"
            "::test_rollouts_of_prompts_that_are_no_longer_there_say_nothing_of_others",
        ),
        (
            Proof(
                f"{CURRICULUM}"
                "::test_of_as_many_other_prompts_it_begins_anew_and_of_the_same_ones_it_goes_on",
                {"oprd.rollouts.curriculum.prompts_fingerprint": nothing},
            ),
            Proof(
                f"{CURRICULUM}"
                "::test_rollouts_of_prompts_that_are_no_longer_there_say_nothing_of_others",
                {"oprd.rollouts.curriculum.Curriculum._number": lambda self, row: row["_number"]},
                error="*",
            ),
        ),
    ),
    Promise(
        "going on from a student, in the place of a checkpoint",
        "it is refused in a sentence that says what to name",
        (
            f"{SAVING}::test_a_student_is_refused_as_a_checkpoint_in_a_sentence",
            f"{CHECKPOINTS}::test_a_student_alone_is_not_gone_on_from",
        ),
        (
            Proof(
                f"{CHECKPOINTS}::test_a_student_alone_is_not_gone_on_from[best]",
                {"oprd.runs.checkpoints._resume_problem": nothing},
            ),
        ),
    ),
    Promise(
        "`push_to_hub`",
        "what is uploaded is complete: the student with its card, and checkpoints where they are "
        "asked for; no prompts, no rollouts, no secrets, nothing else of the run's folder",
        (
            f"{SAVING}::test_what_is_uploaded_is_complete",
            "guards/test_uploads.py"
            "::test_what_is_uploaded_holds_the_student_and_neither_prompts_nor_secrets",
        ),
        (
            Proof(
                "guards/test_uploads.py"
                "::test_what_is_uploaded_holds_the_student_and_neither_prompts_nor_secrets"
                "[False-every_save]",
                {"oprd.guards.uploads._Hub": lambda hub, *_: hub},
            ),
            Proof(
                f"{SAVING}::test_what_is_uploaded_is_complete",
                {
                    "oprd.guards.saving.Checkpoints.push_when_complete": push_at_once,
                },
            ),
        ),
        "with a stand-in for the hub",
    ),
)
