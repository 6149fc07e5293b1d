"""OPRD on TRL: its distillation trainer, with states in the place of logits.

TRL writes the rollouts, splits them into micro-batches and steps the optimizer. Every place where
it calls us is here, a few lines each; what happens there is in `rollouts`, `plan` and `update`.
Three of its methods are the seam: `_generate_and_score_completions`, where positions are selected
and counted once for a generation batch; `_compute_loss`, where the teacher reads and the student
follows; and `compute_loss`, through which that runs where FSDP and DeepSpeed materialise the
weights. The file is longer than others because TRL wants one class.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import gather_object
from datasets import Dataset, IterableDataset
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Sampler
from tqdm.auto import tqdm
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
    ProgressCallback,
    TrainerCallback,
)
from transformers.trainer import TRAINING_ARGS_NAME
from trl.trainer.distillation_trainer import DistillationTrainer
from trl.trainer.utils import (
    get_config_model_id,
    print_prompt_completions_sample,
)

from oprd.calibration.pairing import check_prompts
from oprd.calibration.processes import heads_in_pieces, whole_weights
from oprd.calibration.rate_search import RateSearch, check_can_search, recorded_rate
from oprd.core.capture import num_layers
from oprd.core.layers import LayerPair, student_layers
from oprd.guards.broken import BrokenBatch, objective_at
from oprd.guards.false_progress import FalseProgress
from oprd.guards.finite import Finite
from oprd.guards.rounding import warn_of_rounding
from oprd.guards.samples import SampleKeeper
from oprd.guards.saving import Checkpoints, usual_modes
from oprd.guards.signals import Interruption, take_over
from oprd.guards.space import Space
from oprd.guards.uploads import chosen_uploads
from oprd.guards.warned import RunWarnings
from oprd.log import leave_out_number
from oprd.models.adapters import save_generation
from oprd.models.aligned import Aligned
from oprd.models.average import MovingAverage, check_can_follow
from oprd.models.batch import MicroBatch, written
from oprd.models.bind import head_is_read
from oprd.models.generate import write_with_cache
from oprd.models.identity import student_facts
from oprd.models.load import check_named
from oprd.models.matching import (
    check_trains,
    gradient_reaches_all,
    warn_if_unrelated,
)
from oprd.models.metrics import StepStatistics
from oprd.models.reading import context_length
from oprd.models.rollout_engine import check_engine, joined
from oprd.models.scales import (
    MEAN_SQUARES,
    recorded_mean_squares,
)
from oprd.models.shared_base import students_weights, without_teacher_adapter
from oprd.models.teacher import Teacher
from oprd.models.trial import check_callbacks
from oprd.prompts.fingerprint import prompts_fingerprint
from oprd.prompts.form import check_form, prompt_facts
from oprd.prompts.lengths import check_prompt_count
from oprd.prompts.load import with_prompts
from oprd.prompts.routes import check_groups
from oprd.prompts.show import first_rollout
from oprd.rollouts.curriculum import Curriculum, Numbered
from oprd.rollouts.replay import Replay
from oprd.rollouts.sampler import PromptSampler
from oprd.rollouts.supervised import Rollouts, check_source
from oprd.runs.card import PAPER, CardFacts, write_card
from oprd.runs.record import GIVEN, RATE_TEST
from oprd.settings.rollouts import check_used_up
from oprd.settings.run import OPRDConfig
from oprd.stopwatch import Stopwatch, cost_metrics
from oprd.supported import check_transformers
from oprd.text import escaped_lines
from oprd.training.callbacks import RunRecorder, TrainingProgress, warn_of_begun_stream
from oprd.training.plan import Plan
from oprd.training.task_evaluation import TaskEvaluation
from oprd.training.teachers.assemble import check, obtain, settle
from oprd.training.teachers.team import Given, Team
from oprd.training.writing import Writer

leave_out_number(DistillationTrainer.__module__)


class OPRDTrainer(DistillationTrainer):
    """Trains a student by on-policy representation distillation (Eqs. 6 and 7).

    The student writes rollouts, the frozen teacher reads them, and the student's hidden states are
    pulled to the teacher's. An output-space loss may come beside it, or take its place. Neither
    model's LM head is called in an update.

    Args:
        model: the student: a path or hub id, a causal language model, or a PEFT model.
        teacher_model: the teacher: a path or hub id of a model or of a PEFT adapter, or a model.
            Defaults to `args.teacher_model_name_or_path`. An adapter on the base that the student
            keeps frozen is loaded beside the student's own; the base is held once. Of several
            (`args.teachers`), a mapping from names to those that the settings do not say.
        args: settings.
        train_dataset: rows with a `prompt`, plain text or chat messages.
        eval_dataset: likewise.
        processing_class: the student's tokenizer, loaded from its path by default.
        callbacks: further callbacks.
        optimizers: as in `transformers.Trainer`.
        quantization_config: as in `trl.DistillationTrainer`.
        peft_config: train a new adapter of this kind instead of all weights.
        tools: as in `trl.DistillationTrainer`.
        teacher_processing_class: the teacher's tokenizer, loaded from its path by default.
        reference_model: what `args.extrapolation` goes on from, `args.reference_model` by default.

    Raises:
        ValueError: a setting does not fit the models, the teacher reads the student's token ids as
            other tokens, or a prompt does not fit the context.
        FileNotFoundError: a model by name is neither here nor on the hub.
        ImportError: Transformers is not of the tested range.
    """

    args: OPRDConfig  # pyright: ignore[reportIncompatibleVariableOverride] # TRL's, narrowed

    _tag_names = ["trl", "oprd"]  # noqa: RUF012 # TRL's own class attribute
    _name = "OPRD"
    _paper = PAPER

    def __init__(
        self,
        model: str | PreTrainedModel | Any,
        teacher_model: Given | Mapping[str, Given] = None,
        args: OPRDConfig | None = None,
        train_dataset: Dataset | IterableDataset | None = None,
        eval_dataset: Dataset | dict[str, Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | ProcessorMixin | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
        tools: list[Callable] | None = None,
        *,
        teacher_processing_class: PreTrainedTokenizerBase | None = None,
        reference_model: str | PreTrainedModel | None = None,
    ) -> None:
        check_transformers()
        self._warned = RunWarnings()
        if args is None:
            name = model if isinstance(model, str) else get_config_model_id(model.config)
            args = OPRDConfig(f"{Path(name).name or 'student'}-OPRD")
        if not isinstance(args, OPRDConfig):
            raise TypeError(f"args must be an OPRDConfig, got {type(args).__name__}.")
        if args.use_vllm:
            check_engine(args.vllm_mode, args.device.type)
        self._given = args.given.values(args)
        check_callbacks(callbacks or (), args)
        train_dataset = with_prompts(train_dataset, "train_dataset", args.teacher_columns)
        eval_dataset = with_prompts(eval_dataset, "eval_dataset", args.teacher_columns)
        check_source(train_dataset, args, tools)
        check_prompts(train_dataset, args.layer_pairing, args.max_completion_length)
        check_prompt_count(train_dataset, *args.rollouts_needed)
        self._team = Team(args, teacher_model)
        if isinstance(model, str):
            options = cast(dict[str, Any] | None, args.model_init_kwargs)
            check_named(model, "student", options or {})
        # TRL compares the sizes of the vocabularies of a teacher that it is given. What must agree
        # here is the meaning of the ids, so the teacher is prepared below.
        super().__init__(
            model=model,
            teacher_model=None,
            args=args,
            train_dataset=cast(Dataset, train_dataset),  # TRL takes streamed ones too
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            quantization_config=quantization_config,
            peft_config=peft_config,
            tools=tools,
        )
        self.args: OPRDConfig = args
        write_with_cache(self.generation_config)
        if self.use_vllm:
            half = bool(args.bf16 or args.fp16)
            joined(self.vllm_generation, self.student, half=half)
        self._identity = student_facts(self.student, new_adapter=peft_config is not None)
        check_trains(self.student)
        warn_of_rounding(self.student, self.accelerator)
        check_can_search(args, self.accelerator)
        self._stopwatch = Stopwatch(self.accelerator.device)
        self._step_tokens = 0.0
        self._average: MovingAverage | None = None
        self._seen_first_batch = self._shown = self._repeats = False
        # Those of a batch's rollouts.
        self._batch_rows: Sequence[Mapping[str, Any]] = []
        self._identity |= obtain(self._team, self, teacher_processing_class, reference_model)
        check(self._team, self)
        self._set_rollouts()
        self.teacher_model = settle(self._team, self, teacher_processing_class)
        self._writer = Writer(self, self._draw, self._team.first)
        self._statistics = StepStatistics(self._team.pairs_and_depths(self.student))
        self._set_callbacks()

    def _build_accelerator_args(self, **kwargs: Any) -> dict[str, Any]:
        """Transformers', told in time whether DDP will see weights without a gradient."""
        args = self.args
        if args.ddp_find_unused_parameters is None:
            depth = num_layers(self.student)
            output = all(settings.weights.output.always for settings in args.objectives())
            chosen = (
                student_layers(own.layer_spec, own.layer_pairing, depth)
                for own in args.by_teacher().values()
            )
            args.ddp_find_unused_parameters = not all(
                gradient_reaches_all(self.student, layers, output=output) for layers in chosen
            )
        return super()._build_accelerator_args(**kwargs)

    def _set_rollouts(self) -> None:
        """Be ready to write for this teacher, and check the prompts for both models' contexts."""
        student = self.student
        limit = context_length(student.config)
        contexts = {} if limit is None else {"student": limit}
        self.rollouts = Rollouts(
            self.args,
            (int(student.config.get_text_config().vocab_size), self._team.vocabulary),
            contexts | self._team.contexts,
            (cast(int, self._tokenizer.eos_token_id), *self.eos_token_ids),
            self.max_completion_length,
            {name: member.prompts for name, member in self._team.items()},
            self._team.routes,
            partial(self._tokenizer.batch_decode, skip_special_tokens=True),
            {name: member.own for name, member in self._team.items() if member.own is not None},
        )

        args, accelerator = self.args, self.accelerator
        origins = self.rollouts.origins
        # With beams, what was drawn is not what comes back.
        hears = not args.use_vllm and (self.generation_config.num_beams or 1) == 1
        hears = hears and not heads_in_pieces(accelerator)
        origins.records = args.rollouts_ahead > 1 and hears and head_is_read(student)
        if args.replay:
            origins.replay = Replay(args, accelerator.process_index, accelerator.num_processes)

        def fitting(dataset: Any, name: str) -> Any:
            return self.rollouts.fitting(dataset, name, lambda p: self._tokenize_prompts(p)[0])

        check_form(self.train_dataset, self.processing_class)
        self.train_dataset = fitting(self.train_dataset, "training")
        if isinstance(self.eval_dataset, dict):
            self.eval_dataset = {n: fitting(d, n) for n, d in self.eval_dataset.items()}
        else:
            self.eval_dataset = fitting(self.eval_dataset, "evaluation")
        check_prompt_count(self.train_dataset, *args.rollouts_needed)
        if args.curriculum:
            processes = accelerator.process_index, accelerator.num_processes
            rows = cast(Dataset, self.train_dataset)
            self.rollouts.curriculum = Curriculum(args, rows, *processes)

    def _set_callbacks(self) -> None:
        # First, so that a run that is refused leaves what another has written.
        self._finite = Finite(self, lambda: self._team.models, self._broken_batch)
        kept = self.rollouts.kept_bytes
        self.space = Space(self, len(self._tokenizer), lambda: self._average, lambda: kept)
        self.add_callback(self.space)
        if not self.args.disable_tqdm:
            self.remove_callback(ProgressCallback)
            self.add_callback(TrainingProgress)
        facts = {
            "student": self.student.config.name_or_path,
            **prompt_facts(self.train_dataset),
            **self._team.record(),
            GIVEN: self._given,
        }
        identity = {
            **self._identity,
            "layer_pairs": self._team.pairs if self._team.routes else facts["layer_pairs"],
            "bridges": facts["bridge_hashes"],
            "dataset": prompts_fingerprint(self.train_dataset),
            "teacher_prompts": self._team.prompts_facts(self.train_dataset),
            "processes": self.accelerator.num_processes,
        }
        self._recorder = RunRecorder({**facts, "identity": identity})
        self.checkpoints = Checkpoints(self, lambda: self._recorder.facts)
        self.add_callback(self.checkpoints)
        self.add_callback(self._recorder)
        for name, member in self._team.items():
            if member.source.own == "ema":
                check_can_follow(self.accelerator)
                models = (lambda: self.student), (lambda own=member.teacher: own.reader.model)
                self._average = MovingAverage(*models, self.args.ema_decay, name)
                self.add_callback(self._average)
        self._keeper = SampleKeeper(
            self.args, self._tokenizer, writes=self.accelerator.is_main_process
        )
        self.add_callback(self._keeper)
        self.add_callback(self._warned)
        # Before the first evaluation is logged.
        self.add_callback(FalseProgress(self, self.args))
        if self.args.finds_rate:
            self.add_callback(RateSearch(self))
        take_over(self)
        self.interruption = Interruption(self.accelerator, self.args.steps_per_writing)
        self.add_callback(self.interruption)
        if self.args.eval_task_names:
            self.add_callback(
                TaskEvaluation(self, self.args, self._tokenizer, lambda: self.interruption.number)
            )

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The student's, that of its processor where it has one."""
        return self._tokenizer

    @property
    def student(self) -> PreTrainedModel:
        """The model that trains, not wrapped for distribution."""
        return cast(PreTrainedModel, self.model)

    @property
    def readers(self) -> list[nn.Module]:
        """The teachers, and what an extrapolation goes on from."""
        beyond = self._team.reference
        return [*self._team.models.values(), *([beyond.reader.model] if beyond else [])]

    @property
    def _teacher(self) -> Teacher:
        """The only one, or the first."""
        return self._team.first.teacher

    @property
    def _plan(self) -> Plan:
        """Of the run: its stages are the same with any teacher."""
        return self._team.first.plan

    @property
    def pairs(self) -> tuple[LayerPair, ...]:
        """Which of the student's layers meet which of the teacher's, of the first of several."""
        return self._teacher.pairs

    @property
    def aligned(self) -> Aligned | None:
        """How next tokens meet those of a teacher that reads its own; None where it does not."""
        return self._plan.updates[0].aligned

    @property
    def shares_base(self) -> bool:
        """Whether the teacher is on the student's own base, with another adapter or without."""
        return self._teacher.reader.on_student

    @property
    def _folder(self) -> Path:
        """Of the run."""
        return Path(cast(str, self.args.output_dir))

    # --- rollouts -------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """TRL's, beginning with rollouts of its own; see `find_checkpoint` for where to resume.

        Without a word on that, the settings decide.

        Raises:
            Stopped: a signal ended the run after a step, with a checkpoint.
        """
        check_callbacks(self.callback_handler.callbacks, self.args)
        self._step, self._buffered_inputs = 0, None
        self.rollouts.forget()
        beginning = self.checkpoints.run(resume_from_checkpoint)
        with self.interruption.listening(), beginning as begun:
            if begun.checkpoint is not None:
                check_used_up(self.args, Path(begun.checkpoint))
                self._take_up(begun.facts)
            result = super().train(begun.checkpoint, *args, **kwargs)
            # No further loss would show what the last step did.
            self._finite.check_student()
        self.interruption.end(self.state, self._folder)
        return result

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """TRL's, which leaves training the random numbers that it would have drawn."""
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            return super().evaluate(*args, **kwargs)

    def _init_training_state(self, max_steps: int, *args: Any, **kwargs: Any) -> tuple[int, int]:
        """Transformers', which would log, save and evaluate as often as the checkpoint's run."""
        begun = super()._init_training_state(max_steps, *args, **kwargs)
        self.state.compute_steps(self.args, max_steps)
        warn_of_begun_stream(self.train_dataset, self.state)
        return begun

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Transformers', which looks whether a step is the last one after it alone."""
        if self.control.should_training_stop or self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers', which would delete the last checkpoint where one stays, and is not best.

        Nor does it wait for one that is not complete yet.
        """
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args, **kwargs)
        finally:
            self.args.save_total_limit = limit

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = self._folder / f"checkpoint-{self.state.global_step}"
        # Until then earlier ones that are to be deleted take room.
        self.checkpoints.wait()
        with self.space.saving(folder, checkpoint=True), self.checkpoints.saving():
            super()._save_checkpoint(model, trial)

    def _take_up(self, begun: Mapping[str, Any]) -> None:
        """Go on with what a run measured when it began, and wrote into its record."""
        self._team.take_up(recorded_mean_squares(begun))
        kept = {name: begun[name] for name in (MEAN_SQUARES, RATE_TEST) if name in begun}
        if self.args.finds_rate:
            self.args.learning_rate = recorded_rate(begun)
        self.record(kept)

    def record(self, facts: dict[str, Any]) -> None:
        """Add what is known only now to the run's record."""
        self._recorder.add(self._folder, facts, write=self.accelerator.is_main_process)

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Updates that do not count: what they log is dropped, and the run begins anew."""
        shown = self._shown
        kept = copy.deepcopy((self._metrics, self._logs, self.state.num_input_tokens_seen))
        self._repeats = True
        try:
            yield
        finally:
            self._repeats = False
            self._shown = shown
            self._metrics, self._logs, self.state.num_input_tokens_seen = kept
            self._step, self._buffered_inputs = 0, None
            self.rollouts.forget()
            self._statistics.take()
            self._stopwatch.take()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Transformers', without the tied weights, of which a checkpoint holds one."""
        tied = getattr(self.student, "all_tied_weights_keys", {})
        missing = [name for name in load_result.missing_keys if name not in tied]
        super()._issue_warnings_after_load(load_result._replace(missing_keys=missing))

    def _get_train_sampler(self, dataset: Dataset | None = None) -> Sampler:
        """In the place of TRL's: resumable, with each prompt repeated for its rollouts."""
        args, source = self.args, cast(Dataset, self.train_dataset if dataset is None else dataset)
        batch_size = args.loaded_per_step // args.rollouts_per_prompt
        if groups := self._team.groups(source, args):
            check_groups(groups, batch_size)
        sampler = PromptSampler(
            data_source=source,
            rollouts_per_prompt=args.rollouts_per_prompt,
            batch_size=batch_size,
            repeat_count=self.rollouts.window.micro_steps,
            shuffle=bool(self.shuffle_dataset),
            seed=args.order_seed,
            epoch=lambda: int(self.state.epoch or 0),
            groups=groups,
            ahead=args.rollouts_ahead,
            processes=self.accelerator.num_processes,
        )
        if not len(sampler):
            raise ValueError(
                f"the prompts fill no {args.rollouts_ahead} steps of one teacher each, which are "
                "written at once: lower rollouts_ahead, or set teacher_batches='mixed'."
            )
        return sampler

    def _get_dataloader(
        self, dataset: Any, description: str, batch_size: int, *args: Any, **kwargs: Any
    ) -> DataLoader:
        """Transformers', of what is written at once where TRL's is of one step."""
        if kwargs.get("is_training"):
            own = self.args
            batch_size = own.loaded_per_step * own.rollouts_ahead // own.world_size
            if self.rollouts.curriculum is not None:
                dataset = Numbered(dataset)
        return super()._get_dataloader(dataset, description, batch_size, *args, **kwargs)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """TRL's: rollouts, or the micro-batch of those at hand whose turn it is."""
        at_hand, window = self._buffered_inputs, self.rollouts.window
        if self.student.training:
            if window.use(self._step) > 0 and at_hand is not None:
                return at_hand[self._step % self.args.gradient_accumulation_steps]
            if (curriculum := self.rollouts.curriculum) is not None:
                begins = self._step % window.micro_steps == 0
                step = self.state.global_step
                generation_batch = curriculum.extended(generation_batch, step, begins=begins)
            rows = window.turn(generation_batch, self._step)
            if window.writes_ahead(self._step):
                # What is tried needs the first step alone.
                self._write_ahead(rows if self._repeats else generation_batch)
            generation_batch = rows
        inputs = super()._prepare_inputs(generation_batch)
        self._measure_scales((self.student.training and self._buffered_inputs) or [inputs])
        return inputs

    def _tokenize_prompts(self, prompts: list) -> tuple[list[list[int]], Any, Any]:
        """TRL's, for a batch about to be written; streamed prompts are checked here."""
        prompt_ids, images, fields = super()._tokenize_prompts(prompts)
        if isinstance(self.train_dataset, IterableDataset):
            self.rollouts.check_streamed(prompts, prompt_ids)
        return prompt_ids, images, fields

    def _write_ahead(self, rows: list[dict[str, Any]]) -> None:
        """Write the rollouts of several steps."""
        self._writer.rows = rows
        with self.timed("rollout"):
            prompt_ids, images, fields = self._tokenize_prompts([row["prompt"] for row in rows])
            if images:
                raise ValueError("rollouts_ahead is for text, and prompts have pictures: leave it.")
            self._writer.write_ahead(prompt_ids, fields)

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any):
        """In the place of TRL's, which is one of those who may write."""
        written = self._writer.next(prompt_ids, *args, **kwargs)
        completions = [rollout.response_ids for rollout in written]
        self.rollouts.receive(prompt_ids, completions, fill=not self.tools)
        return completions

    def _draw(self, *args: Any, **kwargs: Any) -> list[list[int]]:
        return super()._generate_single_turn(*args, **kwargs)

    def _generate(self, prompts: list) -> Any:
        """TRL's, with rollouts of earlier steps behind those that are written."""
        prompt_ids, completions, *rest = super()._generate(prompts)
        if self.student.training:
            step, origins = self.state.global_step, self.rollouts.origins
            origins.add_replayed(prompt_ids, completions, self._writer.rows, step)
        return prompt_ids, completions, *rest

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Write rollouts, then select and count the supervised positions of the whole batch."""
        mode = "train" if self.student.training else "eval"
        self._writer.rows = inputs
        with self.timed("rollout"):
            output = super()._generate_and_score_completions(inputs)
        rows: Sequence[Mapping[str, Any]] = inputs
        if mode == "train":
            if self.rollouts.origins.replay is not None:
                rows = [rollout.row for rollout in self.rollouts.origins.batch]
            self._batch_rows = rows
        metrics = self.rollouts.supervise(output, self._summed, rows)
        if mode == "train":
            self._step_tokens = self.rollouts.tokens
            self._show_first(output)
        self._append_metrics(mode, metrics)
        return output

    def _measure_scales(self, batch: list[dict[str, Any]]) -> None:
        """With scale="layer", measure teachers' states on the first rollouts they read."""
        # Bound, as the loss is.
        measure = partial(self._team.measure, self.student, map(MicroBatch.of, batch), self._summed)
        if self._team.unmeasured and not self.args.only_looks:
            with torch.no_grad():
                wrapped = cast(nn.Module, self.model_wrapped)
                self._forward_redirection(wrapped, self.student, measure)
            self.record({MEAN_SQUARES: self._team.mean_squares})

    def first_batch(self) -> list[dict[str, Any]]:
        """The rollouts of the first step, in micro-batches; to be called while `trying`."""
        cast(nn.Module, self.model_wrapped).train()
        self._shown = True
        loader: Any = self.get_train_dataloader()
        self._prepare_inputs(next(iter(loader)))
        # Accelerate's keeps account of loaders that are being read.
        if hasattr(loader, "end"):
            loader.end()
        return cast(list[dict[str, Any]], self._buffered_inputs)

    def supervised(self, output: dict[str, Any]) -> Tensor:
        """[B, K] bool: what the first stage supervises of a generation batch or a part of it."""
        return written(output) if self._plan.settings[0].output else output["positions"]

    def _show_first(self, output: dict[str, Any]) -> None:
        """Print a run's first rollout as the student reads it, where the progress bar is shown."""
        if self._shown or self.args.disable_tqdm or not self.accelerator.is_main_process:
            return
        self._shown = True
        own = self._team.first.own
        theirs = None if own is None else own.tokenizer
        tqdm.write(first_rollout(self._tokenizer, output, self.supervised(output)[0], theirs))

    # --- the loss -------------------------------------------------------------------------------

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ):
        """The micro-batch's share of the loss of the whole batch.

        Gradients are averaged over processes by DDP and FSDP, hence the factor.
        """
        student = self.accelerator.unwrap_model(model)
        # Bound, because wrappers copy the mappings among their arguments and cast what is in them.
        loss_of = partial(self._compute_loss, student, inputs, num_items_in_batch)
        share: Tensor = self._forward_redirection(model, student, loss_of)
        if not self.student.training:
            self._log_statistics("eval")
        elif self.accelerator.sync_gradients:
            if self.rollouts.curriculum is not None:
                self.rollouts.curriculum.learn(
                    lambda own: cast(Tensor, self.accelerator.gather(own))
                )
            # Before backward, because DeepSpeed steps the optimizer inside it.
            self._log_statistics("train")
        loss = share * self.accelerator.num_processes
        return (loss, None) if return_outputs else loss

    def _compute_loss(  # pyright: ignore[reportIncompatibleMethodOverride] # for our compute_loss
        self,
        unwrapped_student: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None,
    ) -> Tensor:
        """The micro-batch's objective: one teacher forward, one student forward, terms summed."""
        batch = self._micro_batch(inputs)
        diagnose, drift = self._diagnosing(), self._measures_drift()
        result = self._team(unwrapped_student, batch, self._place, diagnose=diagnose, drift=drift)
        # Here, because FSDP casts what leaves the forward to bfloat16.
        self._statistics.add(result.sums)
        curriculum, place = self.rollouts.curriculum, batch.place
        if curriculum is not None and place is not None:
            curriculum.meet(self._batch_rows, place, batch.positions, result.row_distance)
        if result.log_probs is not None:
            self.rollouts.origins.learn(batch, result.log_probs)
        if self.student.training and not self._repeats:
            self._keeper.add(self.state, inputs, batch, result.row_cosine)
        return result.objective

    def _micro_batch(self, inputs: dict[str, Any]) -> MicroBatch:
        if not self.student.training:
            return MicroBatch.of(inputs)
        again = self._repeats or not self.rollouts.window.is_last_use(self._step)
        return MicroBatch.of(inputs, use=self.rollouts.window.use(self._step), comes_again=again)

    @property
    def _place(self) -> int:
        """The step, from 0, whose update this is; in evaluation the last one that was made."""
        step = self.state.global_step
        return step if self.student.training else max(step - 1, 0)

    def _measures_drift(self) -> bool:
        origins, window = self.rollouts.origins, self.rollouts.window
        recorded = origins.records and self.rollouts.write is None
        return self.student.training and window.measures_drift(
            self._step, recorded=recorded, replays=origins.replay is not None
        )

    def _diagnosing(self) -> bool:
        """Whether this step, or this evaluation, measures the paper's diagnostics."""
        every = self.args.diagnostics_steps
        return every > 0 and not (self.student.training and (self.state.global_step + 1) % every)

    # --- the step -------------------------------------------------------------------------------

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """TRL's step; at its last micro-batch the cost of all of them is logged."""
        with self._stopwatch("step"):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.accelerator.sync_gradients:
            cost = cost_metrics(self._stopwatch.take(), self._step_tokens, self.accelerator.device)
            self._append_metrics("train", cost)
        return loss

    def create_scheduler(self, num_training_steps: int, optimizer: Optimizer | None = None) -> Any:
        """Transformers' own from a rate above zero, once in each stage of a run that has stages."""
        if self.lr_scheduler is None:
            stepped = cast(Optimizer, optimizer or self.optimizer)
            self.lr_scheduler = self._plan.scheduler(stepped, num_training_steps)
            self._created_lr_scheduler = self.lr_scheduler is not None
        return super().create_scheduler(num_training_steps, optimizer)

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Transformers', by a norm that is finite."""
        norm = self._finite.clip(model, self.args.max_grad_norm)
        return super()._clip_grad_norm(model) if norm is None else norm

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The gradient norm, checked on its way to the optimizer."""
        if grad_norm is None and (grad_norm := self._finite.clip(model, None)) is not None:
            return grad_norm
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self._finite.check_norm(norm)
        return norm

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """TRL's, of weights that are finite in every process, and with a manifest beside them.

        Looks for room first.
        """
        self._finite.check_student()
        folder = Path(output_dir or self._folder)
        # Elsewhere an internal save is part of what has a manifest of its own.
        inner = _internal_call and folder != self._folder
        room = self.space.saving(folder, checkpoint=False)
        manifest = nullcontext() if inner else self.checkpoints.saving_model(folder)
        with room, manifest, whole_weights(self.accelerator):
            super().save_model(output_dir, _internal_call=True)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers', of the student and its card alone."""
        with chosen_uploads(self._folder, self._folder):
            return super().push_to_hub(*args, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Likewise, once the checkpoint is complete."""
        push = super()._push_from_checkpoint
        self.checkpoints.push_when_complete(Path(checkpoint_folder), push)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self._average is not None:
            self._average.save(Path(output_dir), write=self.args.should_save)
        if (replay := self.rollouts.origins.replay) is not None:
            replay.save(Path(output_dir), gather_object, write=self.args.should_save)
        if (curriculum := self.rollouts.curriculum) is not None:
            curriculum.save(Path(output_dir), write=self.args.should_save)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with self.checkpoints.own_rates():
            super()._load_optimizer_and_scheduler(checkpoint)
        if self._average is not None and checkpoint is not None:
            self._average.resume(Path(checkpoint))
        if (replay := self.rollouts.origins.replay) is not None and checkpoint is not None:
            replay.resume(Path(checkpoint))
        if (curriculum := self.rollouts.curriculum) is not None and checkpoint is not None:
            curriculum.resume(Path(checkpoint))

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        own = students_weights(self.student, state_dict)
        with without_teacher_adapter(self.student):
            super()._save(output_dir, own)
        if self.args.should_save:
            folder = Path(output_dir or self._folder)
            # A pickle that nothing here reads; run.json says the same.
            (folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)
            save_generation(self.student, folder)
            usual_modes(folder)

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        """Write the student's card beside it, where TRL writes its own."""
        if not self.is_world_process_zero():
            return
        given = [tags] if isinstance(tags, str) else tags or []
        facts = CardFacts(
            steps=self.state.global_step,
            adapter=hasattr(self.student, "peft_config"),
            name=model_name,
            hub_id=self.hub_model_id,
            tags=[*self._tag_names, *given],
            **prompt_facts(self.train_dataset, dataset_name),
        )
        write_card(self._folder, facts)

    def _broken_batch(self, said: str, step: int, rank: int) -> BrokenBatch:
        """What this process trains on, for a file."""
        settings = self._plan.settings[self._plan.stage(self._place)]
        return BrokenBatch(
            self._buffered_inputs or [],
            step=step,
            rank=rank,
            said=said,
            settings=objective_at(settings, self._plan.within(self._place)),
            pairs=self.pairs,
            mean_squares=self._team.mean_squares,
            precision=self.accelerator.mixed_precision,
            teachers=cast(Any, self._team.pairs if self._team.routes else {}),
        )

    # --- what is logged -------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """TRL's, with completions printed as text that cannot steer a terminal."""
        count, self.num_completions_to_print = self.num_completions_to_print, 0
        try:
            super().log(logs, start_time)
        finally:
            self.num_completions_to_print = count
        if self.log_completions and self._logs["prompt"] and self.accelerator.is_main_process:
            asked, written = self._logs["prompt"], self._logs["completion"]
            shown = list(map(escaped_lines, asked)), list(map(escaped_lines, written))
            step = self.state.global_step
            print_prompt_completions_sample(*shown, {}, None, step, cast(int, count))

    def _log_statistics(self, mode: str) -> None:
        sums = self._statistics.take(self._summed)
        if not sums:
            return
        statistics = self._statistics
        broken = statistics.broken(sums)
        self._finite.check_sums(
            broken, lambda: statistics.broken(statistics.own), keep=not self._repeats
        )
        metrics = self._statistics.metrics(sums)
        self._append_metrics(mode, metrics | self._plan.metrics(self._place))
        compared = self._plan.compares_rows(self._place)
        if mode == "train" and compared and not self._seen_first_batch:
            warn_if_unrelated(metrics.get("rep_cosine"), may_fit=self.args.may_fit)
            self._seen_first_batch = True

    def _append_metrics(self, mode: str, metrics: dict[str, float]) -> None:
        for name, value in metrics.items():
            self._metrics[mode][name].append(value)

    def _summed(self, values: Tensor) -> Tensor:
        return cast(Tensor, self.accelerator.reduce(values, "sum"))

    def timed(self, phase: str) -> AbstractContextManager[None]:
        """Count what is done within as a phase of a step, while the student trains."""
        return self._stopwatch(phase) if self.student.training else nullcontext()
