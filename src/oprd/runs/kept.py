"""What of a run a resume keeps, what it may change with a word, and what it changes as it likes.

Every setting stands in one class. One that stands in none, of another version of a library, may
change with a word.
"""

from oprd.runs.unused import UNUSED

# Facts about a run beside its settings.
MODELS = ("teacher", "student", "reference")
KEPT_FACTS = (
    *MODELS,
    "teachers",
    "teacher_prompts",
    "adapter",
    "layer_pairs",
    "bridges",
)
# What there may be of each of several teachers, by its name, with what each of them is.
SEVERAL = {"teachers": "teacher", "teacher_prompts": ""}
SAID_FACTS = ("teacher_dtype", "student_dtype", "dataset", "processes")

KEPT_SETTINGS = (
    "teacher_source",
    "teacher_batches",
    "ema_decay",
    "extrapolation",
    "extrapolation_power",
    "teacher_template",
    "teacher_system_prompt",
    "teacher_chat_template_kwargs",
    "teacher_tokenizer",
    "teacher_special_tokens",
    "end_tokens",
    "positions",
    "position_k",
    "updates_per_rollout",
    "rollouts_ahead",
    "replay",
    "replay_share",
    "max_drift_kl",
    "curriculum",
    "curriculum_floor",
    "state_loss",
    "state_loss_kwargs",
    "representation_weight",
    "scale",
    "output_loss",
    "output_loss_kwargs",
    "output_weight",
    "reduction",
    "prefix_gradients",
    "stages",
    # The optimizer's state is that of its kind.
    "optim",
    "optim_args",
    "optim_target_modules",
)
KEPT = (*KEPT_FACTS, *KEPT_SETTINGS)

# Settings of the optimizer that are in its state as well: the run's are used.
RATES = ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
SAID_SETTINGS = (
    *RATES,
    "lr_scheduler_type",
    "lr_scheduler_kwargs",
    "warmup_steps",
    "max_grad_norm",
    "seed",
    "data_seed",
    "full_determinism",
    # Which prompts come when.
    "shuffle_dataset",
    "long_prompts",
    "dataloader_drop_last",
    "dataloader_in_order",
    # A stream is dealt out among them.
    "dataloader_num_workers",
    "accelerator_config",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "ignore_data_skip",
    # What is written to them, and by what.
    "rollouts_per_prompt",
    "rollout_horizon",
    "leave_ended",
    "teacher_prefix",
    "teacher_prefix_length",
    "max_completion_length",
    "max_tool_calling_iterations",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "generation_kwargs",
    "chat_template_kwargs",
    "cache_implementation",
    "use_vllm",
    "vllm_mode",
    "vllm_model_impl",
    "vllm_max_model_length",
    "vllm_structured_outputs_regex",
    # How models compute.
    "model_init_kwargs",
    "teacher_model_init_kwargs",
    "disable_dropout",
    "neftune_noise_alpha",
    "bf16",
    "fp16",
    "tf32",
    "use_cpu",
    "use_liger_kernel",
    "liger_kernel_config",
    "pad_to_multiple_of",
    "fsdp",
    "fsdp_config",
    "deepspeed",
    "parallelism_config",
)
# The end of a schedule that depends on it.
LENGTHS = ("max_steps", "num_train_epochs")
# What may change over shares of the run; and of a stage, where it has stages.
OVER_RUN = ("rollout_horizon", "teacher_prefix")
OVER_STAGE = ("representation_weight", "output_weight")

# Settings of which a fact about the run says what came of them.
OF_FACTS = {
    "teacher_model_name_or_path": "teacher",
    "teacher_model_revision": "teacher",
    "teacher_base_model_name_or_path": "teacher",
    "teachers": "teachers",
    "reference_model": "reference",
    "layers": "layer_pairs",
    "layer_pairing": "layer_pairs",
    "bridge": "bridges",
    "bridge_rank": "bridges",
    "bridge_basis": "bridges",
    "bridge_prompts": "bridges",
    "heads_metric": "bridges",
    "heads_rank": "bridges",
}
# Settings that have one value in every run.
ONE_VALUE = tuple(UNUSED)
# By how they begin: evaluation, logs and trackers, saves and uploads, and where servers run.
FREE_BEGINNINGS = (
    "eval_",
    "log_",
    "logging_",
    "trackio_",
    "save_",
    "hub_",
    "push_",
    "do_",
    "ddp_",
    "vllm_server_",
    "teacher_server_",
)
FREE_SETTINGS = (
    "teacher_offload",
    "allow_changed",
    "batch_eval_metrics",
    "bf16_full_eval",
    "debug",
    "diagnostics_steps",
    "disable_tqdm",
    "enable_jit_checkpoint",
    "false_progress_window",
    "fp16_full_eval",
    "greater_is_better",
    "include_for_metrics",
    "include_num_input_tokens_seen",
    "keep_best",
    "label_names",
    "load_best_model_at_end",
    "local_rank",
    "metric_for_best_model",
    "num_completions_to_print",
    "output_dir",
    "overwrite",
    "per_device_eval_batch_size",
    "prediction_loss_only",
    "project",
    "remove_unused_columns",
    "report_to",
    "restore_callback_states_from_checkpoint",
    "resume_from_checkpoint",
    "run_name",
    "sample_steps",
    "skip_memory_metrics",
    "stop_on_false_progress",
    "trust_remote_code",
    # The same numbers, in other time or memory.
    "activation_checkpointing",
    "activation_checkpointing_kwargs",
    "dataloader_multiprocessing_context",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
    "ds3_gather_for_generation",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "keep_teacher_states",
    "torch_empty_cache_steps",
    "use_cache",
    "vllm_enable_sleep_mode",
    "vllm_gpu_memory_utilization",
    "vllm_group_port",
    "vllm_tensor_parallel_size",
)


def may_change(setting: str) -> bool:
    """Whether a resume may change a setting without a word, or says it of a fact."""
    return setting in (*OF_FACTS, *ONE_VALUE, *FREE_SETTINGS, *LENGTHS) or setting.startswith(
        FREE_BEGINNINGS
    )
