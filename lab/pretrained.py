"""SmolLM2-135M-Instruct, and the demo's teacher: the same model, which adds numbers."""

import hashlib
import runpy
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from filelock import FileLock

from lab.models import CACHE
from lab.scores import Scores, scores
from oprd.models.load import load_model

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "recipes" / "demo"


@dataclass(frozen=True)
class Pretrained:
    """The demo's base model as it is, or with the adapter that makes it the teacher."""

    role: Literal["student", "teacher"]
    task: ClassVar[str] = "lab.additions"

    @property
    def key(self) -> dict[str, str]:
        """What tells it from the other, and a teacher from one of another adapter."""
        if self.role == "student":
            return {"role": self.role}
        return {"role": self.role, "adapter": self._adapter}

    @property
    def _adapter(self) -> str:
        """A digest of what is added to the base model."""
        adapter = (DEMO / "teacher" / "adapter_model.safetensors").read_bytes()
        return hashlib.sha256(adapter).hexdigest()[:10]

    @property
    def made_by(self) -> tuple[()]:
        """What the lab has to train for it."""
        return ()

    def path(self) -> Path:
        """The model's folder, or its hub id; the teacher's is made at the first call."""
        base = runpy.run_path(str(DEMO / "smollm2.py"))["base_model_folder"]
        teacher = CACHE / "models" / f"additions-teacher-{self._adapter}"
        teacher.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{teacher}.lock"):
            folder = base(ROOT / ".cache")
            if self.role == "student":
                return Path(folder)
            if not (teacher / "finished").exists():
                adapted, tokenizer = load_model(str(DEMO / "teacher"), base_model=folder)
                adapted.merge_and_unload().save_pretrained(teacher)
                tokenizer.save_pretrained(teacher)
                (teacher / "finished").touch()
            return teacher

    def scores(self, samples: int) -> Scores:
        """Its figures on the reported problems, computed once."""
        name = "-".join(self.key.values())
        file = CACHE / "scores" / "additions" / f"{name}, {samples} samples.json"
        return scores(self.path(), self.task, file, {"reported": samples})
