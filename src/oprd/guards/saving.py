"""A run's checkpoints while it trains: begun as what it is, saved whole, one run to a folder.

All processes save; when they have, the main one hashes what is there beside the next step, and
writes the manifest by which the checkpoint is complete; likewise for the best student. The next
save, and the end of training, wait for it.
"""

import copy
import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINING_ARGS_NAME

from oprd.calibration.processes import from_main, run_locked
from oprd.guards.uploads import chosen_uploads
from oprd.log import get_logger
from oprd.runs.atomic import give_usual_mode
from oprd.runs.beginning import Beginning, Wanted, find_beginning
from oprd.runs.checkpoints import (
    CHECKPOINT,
    begin_checkpoint,
    clear_run,
    delete_cut_off,
    next_start,
    rotate,
)
from oprd.runs.identity import Change
from oprd.runs.kept import RATES
from oprd.runs.manifest import content_hash, saved_into, write_manifest
from oprd.runs.record import ASKED, BEST, GIVEN, versions
from oprd.secrets import without_secrets

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig
    from oprd.training.trainer import OPRDTrainer

# What of a run stands in its folder beside a model.
APART = re.compile(rf"{CHECKPOINT.pattern}|{BEST}(\..*)?|evaluations|completions")
# What settings are called among an optimizer's parameters.
IN_GROUPS = {
    "weight_decay": "weight_decay",
    "adam_beta1": "betas",
    "adam_beta2": "betas",
    "adam_epsilon": "eps",
}

logger = get_logger(__name__)


def resumed_from(args: "OPRDConfig") -> str | None:
    """The checkpoint that the settings ask for, the same in every process.

    Looks at what needs no model to be loaded.

    Raises:
        ValueError: see `find_beginning`.
    """
    return from_main(lambda: find_beginning(_wanted(args, args.resume_from_checkpoint))).checkpoint


def _wanted(args: "OPRDConfig", checkpoint: Any) -> Wanted:
    return Wanted(
        Path(cast(str, args.output_dir)),
        checkpoint,
        args.to_dict(),
        args.max_steps,
        args.overwrite,
        args.allowed_changes,
    )


class Checkpoints(TrainerCallback):
    """How a trainer's run begins, and how it is saved.

    Where it takes the place of another run, that is deleted when training begins, after all that
    could refuse it: as a callback it stands behind the one that looks for room.

    Args:
        trainer: whose run it is.
        facts: what its record says, whenever it is asked.
    """

    def __init__(self, trainer: "OPRDTrainer", facts: Callable[[], dict[str, Any]]) -> None:
        self._trainer, self._facts_of_run = trainer, facts
        self._start = 1
        self._rates: dict[str, Change] = {}
        # One thread, so that manifests are written in the order of their steps.
        self._worker = ThreadPoolExecutor(1, "manifest")
        self._writing: list[Future[None]] = []
        self._push: Callable[[], None] | None = None

    @contextmanager
    def run(self, checkpoint: Any) -> Iterator[Beginning]:
        """Begin a run, alone in its folder, and have its last checkpoint complete at the end.

        Args:
            checkpoint: of `find_checkpoint`; where it is None, what the settings say.

        Raises:
            ValueError: see `find_beginning`.
            OSError: another run is in the folder.
        """
        if checkpoint is None:
            checkpoint = self._args.resume_from_checkpoint
        with run_locked(self._folder):
            begun, self._start = from_main(lambda: self._begin(checkpoint))
            self._rates = {c.name: c for c in begun.changes if c.name in RATES}
            if begun.checkpoint is not None:
                self._trainer.record(begun.record())
            try:
                yield begun
            except BaseException as error:
                # What was saved before stands.
                if (failed := self._failure()) is not None:
                    error.add_note(f"Nor could the last checkpoint be completed: {failed}")
                raise
            self.wait()

    def _begin(self, checkpoint: Any) -> tuple[Beginning, int]:
        """In the main process: find where to begin, and make the folder ready."""
        args, folder = self._args, self._folder
        begun = find_beginning(_wanted(args, checkpoint), self._facts_of_run()["identity"])
        if begun.changes:
            words = ", ".join(change.words() for change in begun.changes)
            logger.warning(
                f"{begun.checkpoint!r} is gone on from otherwise than it began: {words}."
            )
        delete_cut_off(folder)
        return begun, next_start(folder)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Delete the run that this one takes the place of."""
        if not self._args.overwrite:
            return
        folder = self._folder
        left, self._start = from_main(lambda: (clear_run(folder, BEST), next_start(folder)))
        if left and state.is_world_process_zero:
            logger.warning(
                f"left in {str(folder)!r}, because nothing there says what they hold: "
                f"{', '.join(left)}."
            )

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Save a checkpoint in the block: it is complete once its files are hashed, later on.

        The last one is complete by then: see `wait`.
        """
        args, state = self._args, self._trainer.state
        folder = self._folder / f"checkpoint-{state.global_step}"
        if args.should_save:
            begin_checkpoint(folder)
        self._trainer.accelerator.wait_for_everyone()
        # Transformers' would count what is not complete, and whatever begins with its name.
        limit, args.save_total_limit = args.save_total_limit, None
        try:
            yield
            self._trainer.accelerator.wait_for_everyone()
        except BaseException:
            if args.should_save:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            args.save_total_limit = limit
        if args.should_save:
            best = state.best_model_checkpoint
            self.complete(folder, lambda: rotate(folder.parent, limit, best))
        push, self._push = self._push, None
        if push is not None:
            self.wait()
            push()

    def push_when_complete(self, checkpoint: Path, push: Callable[[str], None]) -> None:
        """Upload of the checkpoint that is being saved what is to be, once it is complete.

        Args:
            checkpoint: its folder.
            push: Transformers', to which that is given.
        """

        def pushed() -> None:
            with chosen_uploads(self._folder, checkpoint):
                push(str(checkpoint))
            if self._args.should_save:
                # A pickle that nothing here reads, nor uploads.
                (self._folder / TRAINING_ARGS_NAME).unlink(missing_ok=True)

        self._push = pushed

    @contextmanager
    def saving_model(self, folder: Path) -> Iterator[None]:
        """Save a model in the block, which then has a manifest of its own."""
        together = self._trainer.accelerator.wait_for_everyone
        manifest = saved_into(folder, lambda: self._facts(folder), APART)
        with run_locked(folder):
            with manifest if self._args.should_save else nullcontext():
                together()
                yield
                together()
            together()

    def complete(self, folder: Path, then: Callable[[], object]) -> None:
        """Give a folder in which everything was saved its manifest, beside the next step.

        Args:
            folder: of a checkpoint or a model, and of nothing else.
            then: called when the manifest is there.
        """
        facts = self._facts(folder)

        def write() -> None:
            write_manifest(folder, facts)
            then()

        self._writing.append(self._worker.submit(write))

    def wait(self) -> None:
        """Until what was saved last is complete, in all processes.

        Raises:
            OSError: its files could not be read, or its manifest not be written.
        """
        # With save_on_each_node one process on each saves.
        for failed in gather_object([self._failure()]):
            if failed is not None:
                raise failed

    def _finish(self) -> None:
        while self._writing:
            self._writing.pop(0).result()

    def _failure(self) -> Exception | None:
        try:
            self._finish()
        except Exception as error:
            return error
        return None

    @contextmanager
    def own_rates(self) -> Iterator[None]:
        """Load an optimizer's state in the block; rates that the settings have otherwise are used.

        Raises:
            ValueError: the optimizer is not ours to tell.
        """
        if not self._rates:
            yield
            return
        if self._trainer.is_deepspeed_enabled:
            raise ValueError(
                f"DeepSpeed goes on with the {', '.join(self._rates)} of its checkpoint: give what "
                "the run began with."
            )
        optimizer = cast(Any, self._trainer.optimizer)
        schedule = cast(Any, self._trainer.lr_scheduler)
        made = [{k: v for k, v in g.items() if k != "params"} for g in optimizer.param_groups]
        bases = getattr(schedule, "base_lrs", None)
        yield
        for group, own in zip(optimizer.param_groups, made, strict=True):
            for name in self._rates.keys() & IN_GROUPS.keys():
                group[IN_GROUPS[name]] = own[IN_GROUPS[name]]
            if "learning_rate" in self._rates:
                base = group.get("initial_lr") or self._rates["learning_rate"].before
                rate = own.get("initial_lr", own["lr"])
                group["lr"] = group["lr"] / base * rate
                group["initial_lr"] = rate
        if "learning_rate" in self._rates and bases is not None:
            schedule.base_lrs = bases
            schedule._last_lr = [group["lr"] for group in optimizer.param_groups]

    @property
    def _folder(self) -> Path:
        return Path(cast(str, self._args.output_dir))

    @property
    def _args(self) -> "OPRDConfig":
        return self._trainer.args

    def _facts(self, folder: Path) -> dict[str, Any]:
        """What a manifest says of the run, copied: training goes on meanwhile."""
        settings = self._args.to_dict()
        states = sorted(path.name for path in folder.glob("rng_state*"))
        return copy.deepcopy(
            {
                "step": self._trainer.state.global_step,
                "start": self._start,
                "processes": self._trainer.accelerator.num_processes,
                "settings": settings,
                "settings_hash": content_hash(settings),
                "versions": versions(),
                "facts": self._told_facts(),
                "random_states": states,
            }
        )

    def _told_facts(self) -> dict[str, Any]:
        """The run's, of which settings as they were given may hold secrets."""
        facts = dict(self._facts_of_run())
        for name in facts.keys() & {ASKED, GIVEN}:
            plain = json.loads(json.dumps(facts[name], default=str))
            facts[name] = without_secrets(plain, vars(self._args))
        return facts


def usual_modes(folder: Path) -> None:
    """Let saved weights be read by whom the umask allows."""
    adapters = folder.glob("*/adapter_model.safetensors")
    give_usual_mode(*folder.glob("*.safetensors"), *adapters)
