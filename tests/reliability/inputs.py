"""What is promised of what a run is given, of what it writes and shows, and of evaluation."""

from pathlib import Path
from typing import Any

import torch
import yaml

from oprd.cli import train
from oprd.runs import rowfile
from tests.reliability.promise import Promise, Proof, nothing

BRIDGE_FILE = "core/bridge/test_file.py"
ARGUMENTS = "cli/test_arguments.py"
PROMPTS = "prompts/test_load.py"
TRAINER = "training/test_trainer.py"
EVALUATE = "evaluation/test_evaluate.py"

_parse_rows, _set_load_options = rowfile.parse_rows, train._set_load_options


def unpickled(path: Path, **_: Any) -> Any:
    """As a file is read that may hold anything."""
    return torch.load(path, weights_only=False)


def trusted_alike(args: Any, models: Any) -> None:
    """The student's code and the teacher's."""
    _set_load_options(args, models)
    args.teacher_model_init_kwargs["trust_remote_code"] |= args.trust_remote_code


def no_rows(path: Path, kind: type) -> Any:
    """An interrupted evaluation's samples are passed over."""
    header, _, complete = _parse_rows(path, kind)
    return header, [], complete


INPUTS = (
    Promise(
        "a prompt that leaves no room in the student's context or in the teacher's",
        "an error with row and lengths, or, with `long_prompts: drop`, a count of those left out",
        (
            f"{TRAINER}::test_a_prompt_that_does_not_fit_is_refused_with_its_row_and_lengths",
            f"{TRAINER}::test_the_teachers_context_counts_as_well",
            f"{TRAINER}::test_long_prompts_are_dropped_when_asked",
            f"{EVALUATE}::test_a_prompt_that_does_not_fit_is_named_before_any_work",
        ),
        (
            Proof(
                f"{TRAINER}::test_the_teachers_context_counts_as_well",
                {"oprd.prompts.lengths.prompt_problem": nothing},
            ),
        ),
    ),
    Promise(
        "another tokenizer of the same size",
        "an error with the first ids that differ; a teacher that knows more tokens and padded "
        "embeddings are accepted",
        (
            "models/test_tokenizers.py"
            "::test_another_tokenizer_of_the_same_size_is_refused_with_the_first_different_ids",
            "models/test_tokenizers.py::test_a_teacher_that_knows_more_tokens_is_accepted",
            "models/test_tokenizers.py::test_a_padded_embedding_is_accepted",
            f"{TRAINER}::test_a_teacher_with_another_tokenizer_is_refused",
        ),
        (
            Proof(
                f"{TRAINER}::test_a_teacher_with_another_tokenizer_is_refused",
                {"oprd.models.tokenizers.other_meanings": lambda *_: []},
            ),
        ),
    ),
    Promise(
        "models of other widths without a bridge; a layer or a rank that cannot be",
        "an error at construction, with both sizes and what to set",
        (
            f"{TRAINER}::test_a_wider_teacher_is_refused_with_both_widths",
            f"{TRAINER}::test_a_layer_that_the_student_lacks_is_refused",
            "core/test_layers.py::test_a_bad_specification_is_refused_with_its_value",
            "calibration/test_fit.py"
            "::test_what_cannot_be_fitted_is_refused_before_anything_is_read",
            "cli/test_bridge.py::test_fewer_rows_than_rank_is_one_sentence",
        ),
        (
            Proof(
                f"{TRAINER}::test_a_wider_teacher_is_refused_with_both_widths",
                {"oprd.training.update.check_widths": nothing},
            ),
            Proof(
                f"{TRAINER}::test_a_layer_that_the_student_lacks_is_refused",
                {"oprd.core.layers._numbered": lambda spec, num_layers: tuple(spec)},
            ),
        ),
    ),
    Promise(
        "a bridge's file that is a pickle under any name, damaged, of other models, or holds NaN",
        "it is refused, and no code of it runs",
        (
            f"{BRIDGE_FILE}::test_a_pickle_under_any_name_is_refused_and_runs_nothing",
            f"{BRIDGE_FILE}::test_any_flipped_byte_of_a_tensor_or_of_the_header_is_noticed",
            f"{BRIDGE_FILE}::test_a_file_that_does_not_fit_the_format_is_refused",
            "training/test_bridges.py::test_a_bridge_of_another_run_is_refused",
            "fuzzing/test_bridges.py::test_no_bytes_of_a_bridge_are_read_as_another_one",
        ),
        (
            Proof(
                f"{BRIDGE_FILE}::test_a_pickle_under_any_name_is_refused_and_runs_nothing"
                "[torch-bridge.pt]",
                {"oprd.core.bridge.file.safe_open": unpickled},
            ),
            Proof(
                f"{BRIDGE_FILE}::test_any_flipped_byte_of_a_tensor_or_of_the_header_is_noticed",
                {"oprd.core.bridge.file._digest": lambda *_: "0" * 64},
            ),
        ),
    ),
    Promise(
        "a model repository with code of its own",
        "it does not run unless that is asked for, apart for student and teacher",
        (
            "cli/test_train.py::test_trust_in_the_students_code_is_not_trust_in_the_teachers",
            "models/test_load.py::test_code_of_a_model_repository_is_refused_without_a_question",
            "training/teachers/test_source.py::test_code_of_a_teacher_does_not_run_unless_asked_for",
        ),
        (
            Proof(
                "cli/test_train.py::test_trust_in_the_students_code_is_not_trust_in_the_teachers",
                {"oprd.cli.train._set_load_options": trusted_alike},
            ),
        ),
    ),
    Promise(
        "a name that is absolute, leads elsewhere, is empty, holds NUL, or is too long",
        "it is refused or made safe; nothing is written outside the output directory",
        (
            "test_names.py::test_a_name_that_no_file_system_takes_is_refused",
            "test_names.py::test_a_name_that_is_neither_a_path_nor_a_hub_name_is_refused",
            "evaluation/test_records.py::test_names_stay_inside_the_output_folder",
            "runs/test_manifest.py"
            "::test_a_manifest_that_names_what_is_elsewhere_is_damaged_and_deletes_nothing",
        ),
        (
            Proof(
                "test_names.py::test_a_name_that_no_file_system_takes_is_refused",
                {"oprd.names.check_name": nothing, "oprd.runs.record.check_name": nothing},
                error="*",
            ),
            Proof(
                "evaluation/test_records.py::test_names_stay_inside_the_output_folder",
                {"oprd.evaluation.records._file_name": str},
            ),
        ),
    ),
    Promise(
        "YAML with object tags, unknown keys, wrong types; numbers that cannot be",
        "an error before anything is allocated; an unknown key names the closest one",
        (
            f"{ARGUMENTS}::test_a_file_that_is_no_mapping_of_plain_values_is_refused",
            f"{ARGUMENTS}::test_an_unknown_field_names_the_closest_one",
            f"{ARGUMENTS}::test_a_value_of_the_wrong_kind_is_named_with_what_is_wanted",
            "settings/test_run.py::test_an_illegal_value_is_refused_at_construction",
            "fuzzing/test_yaml.py::test_no_file_of_settings_is_another_kind_of_error",
        ),
        (
            Proof(
                f"{ARGUMENTS}::test_a_file_that_is_no_mapping_of_plain_values_is_refused"
                "[max_steps: 1\\na: !!python/name:os.system-not plain YAML in line 2]",
                {"oprd.cli.config_file.yaml.safe_load": yaml.unsafe_load},
            ),
            Proof(
                f"{ARGUMENTS}::test_a_value_of_the_wrong_kind_is_named_with_what_is_wanted"
                "[bf16: 2-bf16 must be true or false or null, got 2]",
                {"oprd.cli.config_file._check_value": nothing},
                error="*",
            ),
        ),
    ),
    Promise(
        "prompts with a missing column, None, empty text, roles out of order, a broken line; none",
        "an error with file and row, or, with `--bad_rows skip`, a count",
        (
            f"{PROMPTS}::test_a_bad_prompt_is_an_error_that_names_file_line_and_way_out",
            f"{PROMPTS}::test_a_broken_line_is_named_and_can_be_skipped",
            f"{PROMPTS}::test_a_table_without_prompts_lists_its_columns",
            f"{PROMPTS}::test_nothing_left_is_an_error",
            f"{PROMPTS}::test_skipped_rows_are_counted_and_the_first_is_named",
            "fuzzing/test_rows.py::test_no_row_is_another_kind_of_error",
        ),
        (
            Proof(
                f"{PROMPTS}::test_skipped_rows_are_counted_and_the_first_is_named",
                {"oprd.prompts.examples.check_text": lambda text, what: text},
            ),
        ),
    ),
    Promise(
        "any bytes in a file of rows, settings, a bridge, a manifest, a record or an evaluation",
        "an error of ours, or what can be read of it; never another exception",
        (
            "fuzzing/test_rows.py::test_no_row_is_another_kind_of_error",
            "fuzzing/test_yaml.py::test_no_file_of_settings_is_another_kind_of_error",
            "fuzzing/test_bridges.py::test_no_bytes_of_a_bridge_are_read_as_another_one",
            "fuzzing/test_run_files.py::test_no_manifest_is_another_kind_of_error",
            "fuzzing/test_run_files.py::test_no_record_of_a_run_is_another_kind_of_error",
            "fuzzing/test_evaluations.py::test_no_line_of_an_evaluation_is_another_kind_of_error",
        ),
        (
            Proof(
                "fuzzing/test_evaluations.py"
                "::test_no_line_of_an_evaluation_is_another_kind_of_error",
                {"oprd.runs.rowfile._check_object": nothing},
                minutes=0.5,  # hypothesis looks for the smallest example
                error="*",
            ),
            Proof(
                "fuzzing/test_run_files.py::test_no_manifest_is_another_kind_of_error",
                {"oprd.runs.manifest._is_manifest": lambda found: True},
                minutes=0.5,  # likewise
                error="*",
            ),
        ),
        "by drawn examples, not all",
    ),
    Promise(
        "HTML, markup or escape codes in prompts, responses, names",
        "shown escaped in the terminal, in reports and in the model card",
        (
            f"{TRAINER}::test_logged_completions_do_not_steer_a_terminal",
            "cli/test_main.py::test_control_characters_in_a_message_are_escaped",
            "cli/test_preview.py::test_a_hostile_prompt_is_shown_escaped",
            "reports/test_page.py::test_hostile_text_is_text_in_a_page",
            "reports/test_page.py::test_hostile_text_is_text_in_markdown_and_in_a_table",
            "runs/test_card.py::test_nothing_in_a_name_is_markup",
            "evaluation/test_table.py::test_nothing_in_the_output_steers_terminal_or_page",
        ),
        (
            Proof(
                f"{TRAINER}::test_logged_completions_do_not_steer_a_terminal[1]",
                {"oprd.training.trainer.escaped_lines": str},
            ),
            Proof(
                "cli/test_main.py::test_control_characters_in_a_message_are_escaped",
                {"oprd.text.escaped": str},
            ),
        ),
    ),
    Promise(
        "tokens, keys and passwords in the environment, in settings and in URLs",
        "in no file that a run writes, no log, report or card, and never uploaded",
        (
            f"{TRAINER}::test_secrets_of_the_environment_are_in_no_file",
            f"{TRAINER}::test_a_runs_folder_holds_no_pickled_settings",
            "cli/test_export.py::test_no_secret_of_the_environment_or_of_the_settings_is_exported",
            "cli/test_export.py::test_nothing_is_uploaded_unless_that_is_asked_for",
            "cli/test_preview.py::test_secrets_are_hidden",
        ),
        (
            Proof(
                f"{TRAINER}::test_secrets_of_the_environment_are_in_no_file",
                {"oprd.secrets.is_secret": lambda name: False},
            ),
            Proof(
                f"{TRAINER}::test_a_runs_folder_holds_no_pickled_settings",
                {"oprd.training.trainer.TRAINING_ARGS_NAME": "none"},
            ),
        ),
    ),
    Promise(
        "a grader that hangs or crashes on an answer",
        "the answer counts as timeout or error, and the evaluation ends",
        (
            "evaluation/test_graders.py"
            "::test_later_a_grader_that_hangs_or_crashes_costs_one_answer",
            "evaluation/test_grading.py::test_a_timeout_costs_no_other_answer",
            "evaluation/test_grading.py::test_a_killed_worker_is_replaced",
            "evaluation/test_grading.py::test_an_answer_that_kills_every_worker_is_a_parse_error",
        ),
        (
            Proof(
                "evaluation/test_graders.py"
                "::test_later_a_grader_that_hangs_or_crashes_costs_one_answer",
                {"oprd.evaluation.graders.within": lambda seconds, grade: grade()},
                error="ZeroDivisionError",
            ),
        ),
    ),
    Promise(
        "an evaluation that was interrupted, or its file cut",
        "the missing samples alone are drawn again",
        (
            f"{EVALUATE}::test_an_interrupted_evaluation_draws_only_what_is_missing",
            f"{EVALUATE}::test_an_engine_that_dies_leaves_its_finished_batches",
            "evaluation/test_records.py::test_a_file_cut_anywhere_goes_on_from_its_complete_lines",
        ),
        (
            Proof(
                f"{EVALUATE}::test_an_interrupted_evaluation_draws_only_what_is_missing",
                {"oprd.runs.rowfile.parse_rows": no_rows},
            ),
        ),
    ),
)
