"""The pretrained pair: SmolLM2-135M-Instruct, and the demo's teacher, which adds numbers."""

import runpy
from pathlib import Path

from lab.readings import Models, write_rollouts
from oprd.evaluation.models import load_model
from oprd.evaluation.tasks.load import generate_task
from oprd.training.batch import MicroBatch

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "recipes" / "demo"
TASK = "additions"
# As the demo's.
LONGEST_RESPONSE = 56


def load_pretrained() -> Models:
    """The demo's student and its teacher, an adapter on the same base."""
    demo = runpy.run_path(str(DEMO / "smollm2.py"))
    base = demo["base_model_folder"](ROOT / ".cache")
    student, tokenizer = load_model(base)
    teacher, _ = load_model(str(DEMO / "teacher"), base_model=base)
    return Models(student, teacher, tokenizer)


def write_additions(models: Models, count: int, seed: int) -> MicroBatch:
    """The student's rollouts on held-out additions."""
    prompts = [problem.prompt for problem in generate_task(TASK, "test", count).problems]
    return write_rollouts(models.student, models.tokenizer, prompts, LONGEST_RESPONSE, seed)
