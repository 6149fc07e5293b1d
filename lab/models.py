"""Students and teachers: small models trained from scratch on a task, and their checkpoints.

Models are cached by everything that made them: a changed setting makes another model.
"""

import hashlib
import importlib
import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import typer
from datasets import Dataset
from filelock import FileLock
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer
from transformers import (
    DataCollatorForSeq2Seq,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Qwen3Config,
    Qwen3ForCausalLM,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from lab.quiet import quieten
from lab.threads import threads

# To be raised where a change of the code changes what models or runs come out as.
VERSION = 3
CACHE = Path(__file__).parents[1] / ".cache" / "lab" / f"v{VERSION}"
END, PAD = "#", "_"
EXAMPLES = 50_000
# Tokens of a prompt and its response; a task with longer ones says so under the same name.
CONTEXT = 64


class Trained(ABC):
    """A model that the lab trains: once, by whoever holds the lock."""

    @property
    @abstractmethod
    def training(self) -> tuple[str, dict[str, Any]]:
        """What its folder is called after, and everything that decides what comes out of it."""

    @abstractmethod
    def train(self) -> None:
        """Make it anew; the caller holds the lock."""

    @property
    def folder(self) -> Path:
        """Where its checkpoints are."""
        name, key = self.training
        text = json.dumps(key, sort_keys=True)
        return CACHE / "models" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"

    @property
    def lock(self) -> str:
        """The file that whoever trains it holds locked."""
        return f"{self.folder}.lock"

    @property
    def finished(self) -> bool:
        """Whether all of its checkpoints are there."""
        return (self.folder / "finished").exists()


@dataclass(frozen=True)
class Recipe(Trained):
    """How a model is made: its task, shape, budget and seed.

    Attributes:
        task: a module of the lab.
        layers: transformer blocks.
        width: of the hidden states, divisible by four heads.
        steps: optimizer steps, under a cosine schedule.
        batch: worked solutions a step.
        learning_rate: its peak.
        seed: of weights and data.
        keep_every: steps between the checkpoints that stay.
        until: the step to stop at where the rest of the schedule is of no use.
        vocabulary: tokens of byte pairs, learned on the task's texts; its characters where None.
        untied: whether the LM head has weights of its own.
        start: the recipe whose model this one goes on from, with its tokenizer; the shape is its.
        start_step: the step of that training.

    Raises:
        ValueError: the last step would leave no checkpoint, or it goes on from no step.
    """

    task: str
    layers: int = 4
    width: int = 128
    steps: int = 1500
    batch: int = 64
    learning_rate: float = 2e-3
    seed: int = 0
    keep_every: int = 50
    until: int | None = None
    # None is what models had before there was a choice, and what their names leave out.
    vocabulary: int | None = None
    untied: bool | None = None
    start: "Recipe | None" = None
    start_step: int | None = None

    def __post_init__(self) -> None:
        if self.last % self.keep_every:
            raise ValueError(f"step {self.last} is the last, and no multiple of {self.keep_every}.")
        if (self.start is None) != (self.start_step is None):
            raise ValueError("start and start_step go together.")

    @property
    def last(self) -> int:
        """The step to stop at."""
        return self.until or self.steps

    @property
    def module(self) -> str:
        """The task's module, as `oprd eval` takes it after `python:`."""
        return f"lab.{self.task}"

    @property
    def key(self) -> dict[str, Any]:
        """Everything that decides what the model is."""
        own = {name: value for name, value in asdict(self).items() if value is not None}
        return own if self.start is None else {**own, "start": self.start.key}

    @property
    def training(self) -> tuple[str, dict[str, Any]]:
        """See `Trained`."""
        return self.task, self.key

    def train(self) -> None:
        """Train on worked solutions; the checkpoints stay. The caller holds the lock."""
        _train(self)


def make_tokenizer(alphabet: str) -> PreTrainedTokenizerFast:
    """Characters as tokens, with an end and a padding token."""
    vocabulary = {character: index for index, character in enumerate([*alphabet, END, PAD])}
    backend = Tokenizer(WordLevel(vocabulary, unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(""), "isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, pad_token=PAD, padding_side="left"
    )


def learn_tokenizer(task: Any, size: int) -> PreTrainedTokenizerFast:
    """Byte pairs learned on a task's training texts, whichever model asks.

    Raises:
        ValueError: the texts do not give so many.
    """
    backend = Tokenizer(BPE(unk_token=PAD))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(task.PIECES), "isolated")
    backend.decoder = decoders.Fuse()
    trainer = BpeTrainer(
        vocab_size=size,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(task.ALPHABET),
        show_progress=False,
    )
    texts = ("".join(example) for example in task.examples("train", EXAMPLES, seed=0))
    backend.train_from_iterator(texts, trainer)
    if backend.get_vocab_size() != size:
        raise ValueError(f"{size} tokens were asked for, {backend.get_vocab_size()} are there.")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=END, pad_token=PAD, padding_side="left"
    )


def obtain(model: Trained) -> Path:
    """The folder of a model; what is not there is trained by one process alone."""
    if not model.finished:
        model.folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(model.lock):
            if not model.finished:
                model.train()
    return model.folder


def _train(recipe: Recipe) -> None:
    quieten()
    folder = recipe.folder
    typer.echo(f"training the model {folder.name}, {recipe.last} steps")
    shutil.rmtree(folder, ignore_errors=True)
    task = importlib.import_module(recipe.module)
    model, tokenizer = _begin(recipe, task)
    examples = task.examples("train", EXAMPLES, seed=1 + recipe.seed)
    set_seed(recipe.seed)
    trainer = Trainer(
        model=model or _build(recipe, tokenizer, getattr(task, "CONTEXT", CONTEXT)),
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=recipe.steps,
            per_device_train_batch_size=recipe.batch,
            learning_rate=recipe.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=recipe.steps // 20,
            save_steps=recipe.keep_every,
            save_only_model=True,
            logging_steps=recipe.keep_every,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            seed=recipe.seed,
        ),
        train_dataset=_tokenized(tokenizer, examples),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        processing_class=tokenizer,
        callbacks=[_StopAt(recipe.last)],
    )
    trainer.remove_callback(PrinterCallback)
    with threads(1):
        trainer.train()
    (folder / "finished").touch()


def _begin(
    recipe: Recipe, task: ModuleType
) -> tuple[PreTrainedModel | None, PreTrainedTokenizerFast]:
    """The model that a recipe goes on from, None where there is none, and the tokenizer."""
    if recipe.start is not None:
        begun = obtain(recipe.start) / f"checkpoint-{recipe.start_step}"
        tokenizer = PreTrainedTokenizerFast.from_pretrained(begun)
        return Qwen3ForCausalLM.from_pretrained(begun), tokenizer
    if recipe.vocabulary is None:
        return None, make_tokenizer(task.ALPHABET)
    return None, learn_tokenizer(task, recipe.vocabulary)


def _build(recipe: Recipe, tokenizer: PreTrainedTokenizerFast, context: int) -> Qwen3ForCausalLM:
    """A Qwen3-shaped model with random weights."""
    vocabulary = tokenizer.get_vocab()
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(vocabulary),
            hidden_size=recipe.width,
            intermediate_size=3 * recipe.width,
            num_hidden_layers=recipe.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=recipe.width // 4,
            max_position_embeddings=context,
            tie_word_embeddings=not recipe.untied,
            eos_token_id=vocabulary[END],
            pad_token_id=vocabulary[PAD],
            bos_token_id=None,
        )
    )


def _tokenized(tokenizer: PreTrainedTokenizerFast, examples: Sequence[tuple[str, str]]) -> Dataset:
    """Prompts with their solutions, which alone are learned."""
    prompts, solutions = zip(*examples, strict=True)
    asked = tokenizer(list(prompts))["input_ids"]
    answered = tokenizer([solution + END for solution in solutions])["input_ids"]
    return Dataset.from_list(
        [
            {"input_ids": prompt + solution, "labels": [-100] * len(prompt) + solution}
            for prompt, solution in zip(asked, answered, strict=True)
        ]
    )


class _StopAt(TrainerCallback):
    """Ends a training early, under the schedule of the whole."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Stop where it is time."""
        control.should_training_stop |= state.global_step >= self.step
