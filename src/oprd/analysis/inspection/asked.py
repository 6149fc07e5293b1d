"""What an inspection is asked for: two models, prompts, how rollouts are drawn and looked at."""

import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from oprd.analysis.inspection.recipe import STEP
from oprd.calibration.bridge.settings import FitSettings
from oprd.calibration.identity import UNSHAPED
from oprd.calibration.pairing import MIN_PROMPTS
from oprd.models.load import DTYPES, find_model, load_tokenizer, resolve_model
from oprd.models.prompt import template_check
from oprd.models.sampling import Sampling
from oprd.prompts.form import check_form
from oprd.prompts.load import load_prompts
from oprd.values import check_at_least, check_choice


@dataclass(frozen=True)
class Asked:
    """What is inspected, and on what.

    Attributes:
        student: path or hub id of the student.
        teacher: likewise, of a model or an adapter.
        prompts: as `load_prompts` takes them.
        settings: of what is measured: layers, pairing, positions, batches and seed.
        sampling: how the student's rollouts are drawn, one a prompt.
        teacher_base: what a teacher that is an adapter is loaded on, if not what it names itself.
        max_prompts: how many rollouts.
        template_options: what chat templates are given.
        bad_rows: see `load_prompts`.
        long_prompts: whether prompts that do not fit are an "error", or left out ("drop").
        prompt_column: see `load_prompts`.
        dtype: of both models, here and in training; None looks at them in their checkpoints' own,
            and leaves training its default.

    Raises:
        ValueError: a value is illegal; the message names it.
    """

    student: str
    teacher: str
    prompts: str
    settings: FitSettings
    sampling: Sampling
    teacher_base: str | None = None
    max_prompts: int = 64
    template_options: dict[str, Any] = field(default_factory=dict)
    bad_rows: str = "error"
    long_prompts: str = "error"
    prompt_column: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        check_at_least("max_prompts", self.max_prompts, MIN_PROMPTS)
        check_choice("bad_rows", self.bad_rows, ("error", "skip"))
        check_choice("long_prompts", self.long_prompts, ("error", "drop"))
        if self.dtype is not None:
            check_choice("dtype", self.dtype, DTYPES)

    def tokenizers(self) -> tuple[PreTrainedTokenizerBase, PreTrainedTokenizerBase]:
        """Of both models, once both are known to be there.

        Raises:
            FileNotFoundError: a model is neither here nor on the hub.
            ValueError: a name can be neither a path nor a hub id.
            OSError: a tokenizer cannot be read.
        """
        find_model(self.student, "student")
        find_model(self.teacher, "teacher", base_model=self.teacher_base)
        return (
            load_tokenizer(resolve_model(self.student, contents=False)),
            load_tokenizer(
                resolve_model(self.teacher, contents=False), base_model=self.teacher_base
            ),
        )

    def load_prompts(self, tokenizer: PreTrainedTokenizerBase) -> Dataset:
        """The prompts, which the student's chat template takes.

        There are more than are looked at where these would not fill a step of training.

        Raises:
            FileNotFoundError: there is no such file or folder.
            ValueError: they cannot be read, or are too few.
        """
        path = Path(os.path.expanduser(self.prompts))
        if self.prompts == "-" or (path.exists() and not (path.is_file() or path.is_dir())):
            raise ValueError(
                f"prompts {self.prompts!r} are a stream, and training reads them again: save them "
                "to a .jsonl file and name that."
            )
        found = load_prompts(
            self.prompts,
            bad_rows=self.bad_rows,  # pyright: ignore[reportArgumentType] # checked above
            max_prompts=max(self.max_prompts, STEP),
            seed=self.settings.seed,
            prompt_column=self.prompt_column,
            check=template_check(tokenizer, self.template_options),
        )
        check_form(found, tokenizer)
        if len(found) < MIN_PROMPTS:
            raise ValueError(
                f"prompts {self.prompts!r} hold {len(found)}, and an inspection needs "
                f"{MIN_PROMPTS} at least, better 64: states of one rollout resemble each other, "
                "whatever the models do."
            )
        return found

    def training(self, output_dir: Path) -> dict[str, Any]:
        """Models, prompts and places as settings of `oprd train`, which runs in any folder."""
        shaping = asdict(self.sampling)
        options = {
            "teacher_base_model_name_or_path": self.teacher_base and _anywhere(self.teacher_base),
            "dtype": self.dtype,
            "prompt_column": self.prompt_column,
            "chat_template_kwargs": self.template_options or None,
            "bad_rows": self.bad_rows if self.bad_rows != "error" else None,
            "long_prompts": self.long_prompts if self.long_prompts != "error" else None,
            **{name: shaping[name] for name, value in UNSHAPED.items() if shaping[name] != value},
        }
        return {
            "model_name_or_path": _anywhere(self.student),
            "teacher_model_name_or_path": _anywhere(self.teacher),
            "dataset_name": _anywhere(self.prompts),
            "output_dir": str(output_dir.resolve()),
            **{name: value for name, value in options.items() if value is not None},
        }

    def facts(self) -> dict[str, Any]:
        """Everything, as JSON can hold it."""
        return asdict(self)


def _anywhere(name: str) -> str:
    """A name of something here by its whole path; another as it is."""
    path = Path(os.path.expanduser(name))
    return str(path.resolve()) if path.exists() else name
