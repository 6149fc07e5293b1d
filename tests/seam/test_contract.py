"""Every place in TRL, Transformers, Accelerate, PEFT and others that can move without notice.

One row for each: where it is, what it takes, and which of our files leans on it. What a place must
do, beyond being there, is in `test_trl.py` and in the tests of those files.
"""

import ast
import inspect
import textwrap
from functools import cache, reduce
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import transformers
from packaging.specifiers import SpecifierSet
from trl.trainer.distillation_config import DistillationConfig
from trl.trainer.distillation_trainer import DistillationTrainer

import oprd
from oprd.settings.objective import ObjectiveConfig
from oprd.settings.run import OPRDConfig
from oprd.training.trainer import OPRDTrainer

SOURCE = Path(oprd.__file__).parent
PACKAGES = ("trl", "transformers", "accelerate", "peft")
# Below the package, and documented as where their names are imported from.
DOCUMENTED = ("accelerate.logging", "transformers.modeling_outputs", "transformers.utils.logging")
# Private by its name, and the standard library's.
STANDARD = {"_StoreAction", "_actions", "_asdict", "_exit", "_fields", "_get_formatter", "_replace"}
# What vLLM's connectors give to those made of them; tests/engines run with it.
VLLM = {
    "_block_size",
    "_executor",
    "_get_connector_metadata",
    "_is_tp_rank_zero",
    "_kv_cache",
    "_kv_transfer_config",
    "_vllm_config",
}

# In the place of parameters: a class, of which only the name is used; what a class has or sets; and
# what a module holds.
CLASS, ATTRIBUTE, VALUE = "a class", "an attribute", "a value"


class Row(NamedTuple):
    """A place, and what is leant on.

    Attributes:
        place: `module:name`, or `module:Class.name`.
        takes: names of parameters, all of them and in order. After `...` come those that must be
            among the rest. Or `CLASS`, or `ATTRIBUTE`.
        users: files in `src/oprd`, separated by spaces.
        versions: those of Transformers that have it.
        by: what stands in those files, where it is not the last part of the name.
    """

    place: str
    takes: str
    users: str
    versions: str = ""
    by: str = ""

    @property
    def word(self) -> str:
        """What stands in the files that lean on it."""
        *outer, last = self.place.replace(":", ".").split(".")
        return self.by or (outer[-1] if last.startswith("__") else last)


DISTILLATION = "trl.trainer.distillation_trainer:"
TRAINER = "transformers:Trainer."
CACHE = "transformers.cache_utils:"

TABLE = [
    # What the trainer overrides: its own must take the same.
    Row(
        f"{DISTILLATION}DistillationTrainer.__init__",
        "self, model, teacher_model, args, train_dataset, eval_dataset, processing_class, "
        "callbacks, optimizers, quantization_config, peft_config, tools",
        "training/trainer.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer._compute_loss",
        "self, unwrapped_student, inputs, num_items_in_batch",
        "training/trainer.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer.compute_loss",
        "self, model, inputs, return_outputs, num_items_in_batch",
        "training/trainer.py calibration/rate_search.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer.training_step",
        "self, model, inputs, num_items_in_batch",
        "training/trainer.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer._generate_and_score_completions",
        "self, inputs",
        "training/trainer.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer._generate_single_turn",
        "self, prompt_ids, ...",
        "training/trainer.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer._generate",
        "self, prompts",
        "training/trainer.py",
        by="_generate",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer._get_train_sampler",
        "self, dataset",
        "training/trainer.py",
    ),
    Row(
        f"{TRAINER}_get_dataloader",
        "self, dataset, description, batch_size, sampler_fn, is_training, dataloader_key",
        "training/trainer.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer._prepare_inputs",
        "self, generation_batch",
        "training/trainer.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer._tokenize_prompts",
        "self, prompts",
        "training/trainer.py analysis/peak.py",
    ),
    Row(f"{DISTILLATION}DistillationTrainer._tag_names", ATTRIBUTE, "training/trainer.py"),
    Row(f"{DISTILLATION}DistillationTrainer._name", ATTRIBUTE, "training/trainer.py"),
    Row(f"{DISTILLATION}DistillationTrainer._paper", ATTRIBUTE, "training/trainer.py"),
    Row(f"{TRAINER}_get_grad_norm", "self, model, grad_norm", "training/trainer.py"),
    Row(f"{TRAINER}_clip_grad_norm", "self, model", "training/trainer.py"),
    Row(f"{TRAINER}_save_checkpoint", "self, model, trial", "training/trainer.py"),
    Row(
        f"{DISTILLATION}DistillationTrainer.create_model_card",
        "self, model_name, dataset_name, tags",
        "training/trainer.py cli/train.py",
    ),
    Row(f"{TRAINER}_save", "self, output_dir, state_dict", "training/trainer.py"),
    Row(
        f"{DISTILLATION}DistillationTrainer._save_checkpoint",
        "self, model, trial",
        "training/trainer.py",
    ),
    Row(f"{TRAINER}_run_epoch", "self, ...", "training/trainer.py"),
    Row(f"{TRAINER}_init_training_state", "self, max_steps, ...", "training/trainer.py"),
    Row(f"{TRAINER}evaluate", "self, ...", "training/trainer.py"),
    Row(f"{TRAINER}_push_from_checkpoint", "self, checkpoint_folder", "training/trainer.py"),
    Row(f"{TRAINER}push_to_hub", "self, commit_message, ...", "training/trainer.py cli/train.py"),
    Row(f"{TRAINER}_finalize_training", "self, ...", "training/trainer.py"),
    Row(f"{TRAINER}_load_optimizer_and_scheduler", "self, checkpoint", "training/trainer.py"),
    Row(f"{TRAINER}_save_optimizer_and_scheduler", "self, output_dir", "training/trainer.py"),
    Row(
        f"{TRAINER}create_scheduler",
        "self, num_training_steps, optimizer",
        "training/trainer.py",
    ),
    Row(f"{TRAINER}_build_accelerator_args", "self, **kwargs", "training/trainer.py"),
    Row(f"{TRAINER}_issue_warnings_after_load", "self, load_result", "training/trainer.py"),
    # What settings may be called.
    Row("transformers.trainer_utils:HubStrategy", CLASS, "models/trial.py"),
    Row("transformers.trainer_utils:SaveStrategy", CLASS, "models/trial.py"),
    Row("transformers.trainer:TRAINING_ARGS_NAME", VALUE, "training/trainer.py guards/saving.py"),
    Row("transformers.trainer:hf_api", "", "guards/uploads.py"),
    Row(
        "transformers.utils:GENERATION_CONFIG_NAME",
        VALUE,
        "models/adapters.py models/export.py models/load.py",
    ),
    Row("transformers.trainer_jit_checkpoint:JITCheckpointCallback", CLASS, "guards/signals.py"),
    Row("transformers.training_args:OptimizerNames", CLASS, "models/trial.py"),
    Row("transformers.training_args:trainer_log_levels", VALUE, "models/trial.py"),
    Row(
        "transformers.integrations.integration_utils:INTEGRATION_TO_CALLBACK",
        VALUE,
        "models/trial.py",
    ),
    Row("transformers.utils.import_utils:is_liger_kernel_available", "...", "models/trial.py"),
    Row(f"{TRAINER}train", "self, resume_from_checkpoint, ...", "training/trainer.py"),
    # What the trainer finds on itself.
    Row(f"{DISTILLATION}DistillationTrainer._buffered_inputs", ATTRIBUTE, "training/trainer.py"),
    Row(f"{DISTILLATION}DistillationTrainer._step", ATTRIBUTE, "training/trainer.py"),
    Row(
        f"{DISTILLATION}DistillationTrainer._metrics",
        ATTRIBUTE,
        "training/trainer.py",
    ),
    Row(f"{DISTILLATION}DistillationTrainer._logs", ATTRIBUTE, "training/trainer.py"),
    Row(
        f"{DISTILLATION}DistillationTrainer._tokenizer",
        ATTRIBUTE,
        "training/trainer.py training/task_evaluation.py",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer._forward_redirection",
        ATTRIBUTE,
        "training/trainer.py training/teachers/assemble.py",
    ),
    Row(
        "trl.models.utils:_ForwardRedirection.__call__",
        "self, wrapper_module, original_module, method, *args, **kwargs",
        "training/trainer.py training/teachers/place.py models/reader.py",
        by="redirect",
    ),
    Row(
        f"{DISTILLATION}DistillationTrainer.max_completion_length",
        ATTRIBUTE,
        "training/trainer.py",
    ),
    Row(f"{DISTILLATION}DistillationTrainer.tools", ATTRIBUTE, "training/trainer.py"),
    Row(
        f"{TRAINER}is_deepspeed_enabled",
        ATTRIBUTE,
        "guards/finite.py guards/space.py guards/saving.py training/teachers/assemble.py",
    ),
    Row(f"{TRAINER}_created_lr_scheduler", ATTRIBUTE, "training/trainer.py"),
    Row(
        f"{TRAINER}lr_scheduler",
        ATTRIBUTE,
        "training/trainer.py calibration/rate_search.py guards/saving.py",
    ),
    Row(
        f"{TRAINER}model_wrapped",
        ATTRIBUTE,
        "training/task_evaluation.py training/trainer.py calibration/rate_search.py",
    ),
    Row(f"{TRAINER}control", ATTRIBUTE, "training/task_evaluation.py"),
    # What is called on it.
    Row(
        f"{TRAINER}save_model",
        "self, output_dir, _internal_call",
        "training/task_evaluation.py training/trainer.py cli/train.py guards/finite.py",
    ),
    Row(
        f"{TRAINER}log",
        "self, logs, start_time",
        "training/task_evaluation.py training/trainer.py",
    ),
    Row(f"{TRAINER}end", "self", "cli/train.py", ">=5.18"),
    Row("transformers:ProgressCallback.training_bar", ATTRIBUTE, "training/callbacks.py"),
    Row(
        "transformers:TrainingArguments.distributed_state",
        ATTRIBUTE,
        "training/teachers/source.py analysis/peak.py",
    ),
    Row(
        "transformers:TrainingArguments.get_warmup_steps",
        "self, num_training_steps",
        "training/plan.py models/trial.py",
    ),
    # TRL's helpers.
    Row(
        "trl.trainer.utils:create_model_from_path",
        "model_id, ..., **kwargs",
        "training/teachers/source.py",
    ),
    Row("trl.trainer.utils:get_config_model_id", "config", "training/trainer.py"),
    Row(
        "trl.trainer.utils:print_prompt_completions_sample",
        "prompts, completions, rewards, advantages, step, num_samples, extra",
        "training/trainer.py",
    ),
    Row("trl.models.utils:prepare_deepspeed", "model, accelerator", "training/teachers/place.py"),
    Row("trl.models.utils:prepare_fsdp", "model, accelerator", "training/teachers/place.py"),
    Row(
        "trl.models.utils:unwrap_model_for_generation",
        "model, accelerator, ..., gather_deepspeed3_params, gradient_checkpointing_kwargs",
        "training/task_evaluation.py",
    ),
    Row(
        "trl.distributed:DistributedBackend.__init__",
        "self, accelerator",
        "training/task_evaluation.py",
    ),
    Row(
        "trl.distributed:DistributedBackend.summon_full_params",
        "self, module, **kwargs",
        "training/task_evaluation.py",
    ),
    Row(
        f"{DISTILLATION}_chunked_divergence_loss",
        "student_hidden_states, teacher_hidden_states, student_lm_head_weight, "
        "teacher_lm_head_weight, completion_mask, ..., beta, student_lm_head_bias, "
        "teacher_lm_head_bias, student_logit_scale, teacher_logit_scale, "
        "student_final_logit_softcapping, teacher_final_logit_softcapping",
        "analysis/others.py",
    ),
    Row("trl:TrlParser.__init__", "self, dataclass_types, **kwargs", "cli/arguments.py"),
    Row("trl:TrlParser.parse_args_and_config", "self, args, ...", "cli/arguments.py"),
    Row("transformers:HfArgumentParser.dataclass_types", ATTRIBUTE, "cli/arguments.py"),
    # The cache, and the name under which a model takes it.
    Row(f"{CACHE}Cache.__init__", "self, layers, ...", "models/windowed.py"),
    Row(f"{CACHE}Cache.layers", ATTRIBUTE, "models/windowed.py"),
    Row(
        f"{CACHE}Cache.update",
        "self, key_states, value_states, layer_idx, *args, **kwargs",
        "models/windowed.py",
    ),
    Row(
        f"{CACHE}DynamicCache.__init__",
        "self, ..., config",
        "models/windowed.py rollouts/leaving.py",
    ),
    Row(f"{CACHE}DynamicCache.batch_select_indices", "self, indices", "rollouts/leaving.py"),
    Row("transformers.generation.utils:GenerateDecoderOnlyOutput", CLASS, "rollouts/leaving.py"),
    Row(
        f"{CACHE}DynamicLayer.__init__",
        "self, **kwargs",
        "models/windowed.py rollouts/leaving.py",
    ),
    Row(
        f"{CACHE}DynamicLayer.lazy_initialization",
        "self, key_states, value_states",
        "models/windowed.py",
    ),
    Row(
        f"{CACHE}DynamicLayer.update",
        "self, key_states, value_states, *args, **kwargs",
        "models/windowed.py",
    ),
    Row(f"{CACHE}DynamicLayer.keys", ATTRIBUTE, "models/windowed.py"),
    Row(f"{CACHE}DynamicLayer.values", ATTRIBUTE, "models/windowed.py"),
    Row(f"{CACHE}DynamicSlidingWindowLayer", CLASS, "models/windowed.py"),
    Row(
        "transformers:LlamaModel.forward",
        "self, input_ids, attention_mask, position_ids, ..., past_key_values, use_cache",
        "models/reading.py",
        "<5.24",
    ),
    Row(
        "transformers:LlamaModel.forward",
        "self, input_ids, attention_mask, position_ids, ..., cache, use_cache",
        "models/reading.py",
        ">=5.24",
    ),
    # Transformers' models.
    Row(
        "transformers.modeling_layers:GradientCheckpointingLayer.gradient_checkpointing",
        ATTRIBUTE,
        "models/windowed.py",
    ),
    Row(
        "transformers:PreTrainedModel._gradient_checkpointing_func",
        ATTRIBUTE,
        "models/windowed.py",
    ),
    Row("transformers:PreTrainedModel.get_decoder", "self", "core/capture.py"),
    Row("transformers:PreTrainedModel.base_model", ATTRIBUTE, "models/reading.py"),
    Row("transformers:PreTrainedConfig._name_or_path", ATTRIBUTE, "models/load.py"),
    # Since then a configuration does not say of which commit it is, and no commit is recorded.
    Row("transformers:PreTrainedConfig._commit_hash", ATTRIBUTE, "models/load.py", "<5.18"),
    Row(
        "transformers.utils.hub:cached_file",
        "path_or_repo_id, filename, **kwargs",
        "training/teachers/source.py models/load.py serving/checkpoint.py",
    ),
    # Where `cached_file` hands what it takes by name.
    Row(
        "transformers.utils.hub:cached_files",
        "path_or_repo_id, filenames, ..., revision, _raise_exceptions_for_missing_entries, "
        "_raise_exceptions_for_connection_errors, _raise_exceptions_for_gated_repo",
        "training/teachers/source.py models/load.py serving/checkpoint.py",
        by="cached_file",
    ),
    Row(
        "transformers.utils.import_utils:is_peft_available",
        "",
        "models/shared_base.py models/heads.py training/teachers/source.py",
    ),
    # PEFT.
    Row(
        "peft.tuners.tuners_utils:BaseTunerLayer._active_adapter",
        ATTRIBUTE,
        "models/shared_base.py",
    ),
    Row(
        "peft.utils.other:AuxiliaryTrainingWrapper._active_adapter",
        ATTRIBUTE,
        "models/shared_base.py",
    ),
    Row(
        "peft.utils.other:ModulesToSaveWrapper.modules_to_save",
        ATTRIBUTE,
        "models/heads.py models/shared_base.py reports/again.py",
    ),
    Row(
        "peft.utils.other:AuxiliaryTrainingWrapper.active_adapters",
        ATTRIBUTE,
        "models/heads.py models/shared_base.py",
    ),
    Row(
        "peft.tuners.tuners_utils:BaseTunerLayer._disable_adapters",
        ATTRIBUTE,
        "models/shared_base.py",
    ),
    Row(
        "peft.utils.other:AuxiliaryTrainingWrapper._disable_adapters",
        ATTRIBUTE,
        "models/shared_base.py",
    ),
    Row("peft:LoraModel.prefix", ATTRIBUTE, "models/shared_base.py models/identity.py"),
    Row(
        "peft:PeftModel.peft_config",
        ATTRIBUTE,
        "models/shared_base.py calibration/models.py training/teachers/source.py "
        "training/trainer.py guards/space.py models/identity.py models/blocks.py "
        "models/adapters.py analysis/setup.py",
    ),
    Row(
        "peft:PeftModel.get_base_model",
        "self",
        "core/capture.py models/reading.py models/heads.py models/shared_base.py "
        "models/identity.py rollouts/recorded.py models/adapters.py",
    ),
    Row(
        "peft:PeftModel.load_adapter",
        "self, model_id, adapter_name, is_trainable, ...",
        "models/shared_base.py training/teachers/obtain.py",
    ),
    # Accelerate.
    Row(
        "accelerate.state:AcceleratorState.deepspeed_plugin",
        ATTRIBUTE,
        "training/teachers/place.py calibration/rate_search.py calibration/processes.py "
        "models/average.py",
    ),
    Row(
        "accelerate.state:AcceleratorState.fsdp_plugin",
        ATTRIBUTE,
        "training/teachers/place.py calibration/processes.py models/average.py",
    ),
    Row("accelerate:Accelerator.is_fsdp2", ATTRIBUTE, "calibration/processes.py guards/finite.py"),
    Row(
        "accelerate:Accelerator.prepare_model",
        "self, model, ..., evaluation_mode",
        "training/teachers/place.py",
    ),
    Row(
        "accelerate.utils:gather_object",
        "object",
        "guards/finite.py models/shared_engine.py training/trainer.py guards/saving.py",
    ),
    Row("accelerate.utils:broadcast_object_list", "object_list, ...", "calibration/processes.py"),
    Row("accelerate.utils:reduce", "tensor, reduction, ...", "calibration/bridge/scores.py"),
    # Read with a default, behind which a move would hide.
    Row("transformers:PreTrainedModel.all_tied_weights_keys", ATTRIBUTE, "training/trainer.py"),
    Row("transformers:LlamaConfig.rope_parameters", ATTRIBUTE, "models/windowed.py"),
    Row(
        "accelerate.scheduler:AcceleratedScheduler.scheduler",
        ATTRIBUTE,
        "calibration/rate_search.py",
    ),
    Row(
        "accelerate.optimizer:AcceleratedOptimizer.optimizer",
        ATTRIBUTE,
        "calibration/rate_search.py",
    ),
    Row("accelerate.data_loader:DataLoaderShard.end", "self", "training/trainer.py"),
    # Of others.
    Row(
        "torch.optim.lr_scheduler:LRScheduler._last_lr",
        ATTRIBUTE,
        "calibration/rate_search.py guards/saving.py",
    ),
    Row("sympy:Float._prec", ATTRIBUTE, "evaluation/exact.py"),
    Row(
        "latex2sympy2_extended.math_normalization:units_regex",
        VALUE,
        "evaluation/math_worker.py",
    ),
    Row("latex2sympy2_extended.sets:FiniteSet._unsorted_args", ATTRIBUTE, "evaluation/exact.py"),
    Row("latex2sympy2_extended.logic:And._unsorted_args", ATTRIBUTE, "evaluation/exact.py"),
]

HERE = [row for row in TABLE if transformers.__version__ in SpecifierSet(row.versions)]
LEAVES = {row.place.replace(":", ".").rpartition(".")[2] for row in TABLE}
# Our own names that are TRL's documented ones as well: the trainer's, and those of its settings.
SHARED = {"args", "train_dataset", "eval_dataset", "teacher_model"}
SHARED_SETTINGS = {
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "logging_nan_inf_filter",
    "to_dict",
}
# Words that mean other things in other files.
COMMON = {
    "Cache",
    "DistillationTrainer",
    "_name",
    "_save",
    "_step",
    "_tokenizer",
    "base_model",
    "control",
    "end",
    "evaluate",
    "forward",
    "gradient_checkpointing",
    "keys",
    "layers",
    "log",
    "max_completion_length",
    "optimizer",
    "prefix",
    "reduce",
    "scheduler",
    "tools",
    "train",
    "update",
    "values",
}


def check(row: Row) -> None:
    """Fail in one line where a place is not what its row says."""
    module, _, name = row.place.partition(":")
    *outer, last = name.split(".")
    try:
        owner = reduce(getattr, outer, import_module(module))
        is_set = row.takes is ATTRIBUTE and last in names_set(owner)
        found = None if is_set else getattr(owner, last)
    except (ImportError, AttributeError) as error:
        raise AssertionError(f"{row.place} is gone ({error}): {advice(row)}") from error
    if row.takes in (ATTRIBUTE, VALUE):
        return
    if row.takes is CLASS:
        assert isinstance(found, type), f"{row.place} is no class: {advice(row)}"
        return
    taken = parameters(found)
    difference = f"takes ({', '.join(taken)}), not ({row.takes})"
    assert agrees(taken, row.takes), f"{row.place} {difference}: {advice(row)}"


def advice(row: Row) -> str:
    return "look at " + ", ".join(f"src/oprd/{user}" for user in row.users.split())


def parameters(function: Any) -> list[str]:
    stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    found = inspect.signature(function).parameters.values()
    return [stars.get(parameter.kind, "") + parameter.name for parameter in found]


def agrees(taken: list[str], takes: str) -> bool:
    first, gap, others = takes.partition("...")
    start = [name for name in first.split(", ") if name]
    if not gap:
        return taken == start
    rest = taken[len(start) :]
    return taken[: len(start)] == start and all(n in rest for n in others.split(", ") if n)


def set_in(source: str) -> set[str]:
    """What the source of a class sets on an object or declares."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


@cache
def names_set(cls: type) -> set[str]:
    """What a class and its bases, Python's own left out, set on an object or declare."""
    bases = [base for base in inspect.getmro(cls) if base.__module__ != "builtins"]
    names: set[str] = set()
    for base in bases:
        try:
            source = inspect.getsource(base)
        except (OSError, TypeError):  # made at run time
            continue
        names |= set_in(textwrap.dedent(source))
    return names


@pytest.mark.parametrize("row", HERE, ids=lambda row: row.place)
def test_a_place_that_we_lean_on_is_as_it_was(row):
    check(row)


@pytest.mark.parametrize(
    ("place", "takes", "problem"),
    [
        ("trl.no_such_module:name", "", "is gone"),
        ("trl.trainer.utils:no_such_function", "", "is gone"),
        ("trl:NoSuchClass.method", "", "is gone"),
        ("trl:DistillationTrainer._no_such_attribute", ATTRIBUTE, "is gone"),
        ("trl.trainer.utils:get_config_model_id", CLASS, "is no class"),
        ("trl.trainer.utils:get_config_model_id", "", r"takes \(config\), not \(\)"),
        ("trl.models.utils:prepare_fsdp", "model", r"takes \(model, accelerator\), not \(model\)"),
        ("trl.models.utils:prepare_fsdp", "accelerator, model", "takes"),
        ("trl.models.utils:prepare_fsdp", "accelerator, ...", "takes"),
        ("trl.models.utils:prepare_fsdp", "model, ..., evaluation_mode", "takes"),
        ("transformers.cache_utils:DynamicLayer.update", "self, ..., args", "takes"),
    ],
)
def test_a_place_that_moved_is_named_with_the_files_that_lean_on_it(place, takes, problem):
    with pytest.raises(AssertionError, match=problem) as raised:
        check(Row(place, takes, "training/trainer.py training/teachers/place.py"))
    message = str(raised.value).splitlines()[0]
    assert message.startswith(place)
    assert message.endswith(
        ": look at src/oprd/training/trainer.py, src/oprd/training/teachers/place.py"
    )


def words(source: str) -> set[str]:
    """Names in the code of a file: its own, those it asks for, and those it has as text."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case (
                ast.Attribute(attr=str(name))
                | ast.Name(id=name)
                | ast.alias(name=name)
                | ast.arg(arg=name)
                | ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Constant(value=str(name))
            ):
                found.add(name)
    return found


WORDS = {
    file.relative_to(SOURCE).as_posix(): words(file.read_text())
    for file in sorted(SOURCE.rglob("*.py"))
}


def misplaced(row: Row) -> tuple[set[str], set[str]]:
    """Files that a row names and that do not speak of its place, and those that it leaves out."""
    listed = set(row.users.split())
    lean = {file for file, found in WORDS.items() if any(row.word in word for word in found)}
    exact = {file for file, found in WORDS.items() if row.word in found}
    return listed - lean, set() if row.word in COMMON or row.by else exact - listed


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.place} {row.versions}".strip())
def test_a_row_names_the_files_that_lean_on_its_place_and_no_others(row):
    assert misplaced(row) == (set(), set())


def test_a_file_that_a_row_names_wrongly_or_leaves_out_is_found():
    row = Row("accelerate.utils:gather_object", "object", "training/plan.py no/such/file.py")
    assert misplaced(row) == (
        {"training/plan.py", "no/such/file.py"},
        {
            "guards/finite.py",
            "guards/saving.py",
            "models/shared_engine.py",
            "training/trainer.py",
        },
    )


def test_the_common_words_are_those_of_rows():
    assert {row.word for row in TABLE} >= COMMON


def test_each_place_has_one_row_in_each_version():
    for version in ("5.17.0", "5.23.0", "5.24.0"):
        places = [row.place for row in TABLE if version in SpecifierSet(row.versions)]
        assert sorted(places) == sorted(set(places))


def names_of_insides(source: str) -> set[str]:
    """`module:name` of what is used of these packages and is none of their public names."""
    tree, found, called = ast.parse(source), set(), {}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PACKAGES:
                found |= {(module, alias.name) for alias in node.names}
            case ast.Import():
                modules = [alias for alias in node.names if alias.name.split(".")[0] in PACKAGES]
                called |= {alias.asname or alias.name: alias.name for alias in modules}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_module(owner := called_path(node.value, called)):
            found.add((owner, node.attr))
    return {f"{module}:{name}" for module, name in found if not is_public(module, name)}


def called_path(node: ast.expr, called: dict[str, str]) -> str:
    """The dotted name of an expression, of which a file calls a module by another name."""
    path = ast.unparse(node)
    if path in called:
        return called[path]
    head, _, rest = path.partition(".")
    return f"{called[head]}.{rest}" if head in called else path


def is_module(path: str) -> bool:
    package, *below = path.split(".")
    if package not in PACKAGES or not all(name.isidentifier() for name in below):
        return False
    try:
        return isinstance(import_module(path), ModuleType)
    except ImportError:
        return False


def is_public(module: str, name: str) -> bool:
    """Whether a package documents a name, or shows it at its top."""
    if is_private(name):
        return False
    # The way to a module is not the use of one.
    return (
        module in DOCUMENTED
        or hasattr(import_module(module.split(".")[0]), name)
        or is_module(f"{module}.{name}")
    )


def private_names(source: str) -> tuple[set[str], set[str]]:
    """Private attributes that are used, and private names that are made."""
    used, made = set(), set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                made.add(name)
            case ast.Attribute(attr=name):
                used.add(name)
            case ast.Call(
                func=ast.Name(id="getattr" | "hasattr" | "setattr" | "delattr"),
                args=[_, ast.Constant(value=str(name)), *_],
            ):
                used.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                made.add(name)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                made.add(name)

    return set(filter(is_private, used)), set(filter(is_private, made))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def unlisted(source: str) -> set[str]:
    """What a file takes from the inside of these packages without a row in the table."""
    places = [row.place for row in TABLE]
    names = {
        name
        for name in names_of_insides(source)
        if not any(place == name or place.startswith(f"{name}.") for place in places)
    }
    used, made = private_names(source)
    return names | (used - made - STANDARD - VLLM - LEAVES)


@pytest.mark.parametrize("file", WORDS)
def test_everything_private_that_a_file_uses_is_in_the_table(file):
    assert unlisted((SOURCE / file).read_text()) == set()


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ("from trl.trainer.utils import _private", "trl.trainer.utils:_private"),
        ("from trl import _private", "trl:_private"),
        ("from trl.trainer.utils import pad", "trl.trainer.utils:pad"),
        ("from accelerate.utils import send_to_device", "accelerate.utils:send_to_device"),
        ("from transformers.utils import ModelOutput", "transformers.utils:ModelOutput"),
        ("import trl.trainer.utils as u; u.pad", "trl.trainer.utils:pad"),
        ("import trl.trainer.utils; trl.trainer.utils.pad", "trl.trainer.utils:pad"),
        ("import trl; trl.trainer.utils.pad", "trl.trainer.utils:pad"),
        ("import trl as t; t._private", "_private"),
        ("model._private()", "_private"),
        ("model._private = 1; model._private", "_private"),
        ("getattr(model, '_private', None)", "_private"),
        ("hasattr(model, '_private')", "_private"),
        ("setattr(model, '_private', 1)", "_private"),
        # Another file of ours makes it.
        ("model._redirect", "_redirect"),
    ],
)
def test_something_private_without_a_row_would_be_found(lines, found):
    assert found in unlisted(lines)


@pytest.mark.parametrize(
    "lines",
    [
        "from trl import TrlParser",
        "import transformers; transformers.AutoModel",
        "from accelerate import PartialState",
        "def _ours(): ...\nmodule._ours",
        "self._ours = 1; made._ours",
    ],
)
def test_what_is_public_or_the_files_own_needs_no_row(lines):
    assert unlisted(lines) == set()


def in_the_place_of(ours: type, theirs: type) -> set[str]:
    """Names of a class of ours and of its bases in this package that one of theirs has too."""
    kinds = [kind for kind in ours.__mro__ if kind.__module__.startswith("oprd.")]
    names = {name for kind in kinds for name in vars(kind) if not name.startswith("__")}
    for kind in kinds:
        names |= private_names(inspect.getsource(kind))[1]
    return names & {*dir(theirs), *names_set(theirs)}


def test_what_our_trainer_takes_the_place_of_is_in_the_table():
    assert in_the_place_of(OPRDTrainer, DistillationTrainer) - LEAVES - SHARED == set()


def test_our_settings_take_the_place_of_none_of_theirs_but_those_that_are_meant():
    assert in_the_place_of(OPRDConfig, DistillationConfig) == SHARED_SETTINGS


def test_a_setting_that_hid_one_of_theirs_would_be_found(monkeypatch):
    monkeypatch.setattr(ObjectiveConfig, "world_size", property(lambda self: 1), raising=False)
    assert in_the_place_of(OPRDConfig, DistillationConfig) - SHARED_SETTINGS == {"world_size"}
