"""A student of one family and a teacher of another: one run, and what it taught.

    python recipes/families/families.py heads-prior --teacher runs/families/teacher --output run

Student: SmolLM2-135M-Instruct, or `--student` (a folder or a hub id). Teacher: what
`make_teacher.py` makes, with a tokenizer of its own. The method is a name in `METHODS`, or
`supervised` for fine-tuning on what the teacher writes to the same problems. The output folder
holds the run and `found.json`: the share of held-out problems that teacher and student solve,
before and after, and the seconds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from datasets import Dataset
from sums import problems, task
from supervised import sequences, train
from transformers.utils import logging as transformers_logging

from oprd import OPRDConfig, OPRDTrainer
from oprd.evaluation.evaluate import evaluate_model
from oprd.evaluation.result import Evaluation
from oprd.models.generate import Request, TransformersEngine
from oprd.models.load import load_model
from oprd.models.sampling import Sampling

MAX_TOKENS = 32
# Of whatever is loaded, as `OPRDTrainer` does: in bfloat16 small updates are lost to rounding.
DTYPE = "float32"
SUPERVISED = "supervised"
# Settings of `OPRDConfig` beside those that all have in common.
METHODS: dict[str, dict[str, Any]] = {
    "distributions": {
        "output_loss": "reverse_kl",
        "representation_weight": 0.0,
        "bridge": None,
    },
    "both": {"output_loss": "reverse_kl", "bridge_basis": "pca", "bridge_rank": 16},
    "bridge": {"bridge_basis": "pca", "bridge_rank": 16},
    "bridge-64": {"bridge_basis": "pca", "bridge_rank": 64},
    "rrr": {"bridge_basis": "rrr", "bridge_rank": 16},
    "heads": {"bridge_basis": "heads", "heads_metric": "centered", "layers": "last"},
    "heads-prior": {"bridge_basis": "heads", "heads_metric": "prior", "layers": "last"},
    "heads-fisher": {"bridge_basis": "heads", "heads_metric": "fisher", "layers": "last"},
}


def main() -> None:
    options = parse_options()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    options.output.mkdir(parents=True, exist_ok=True)
    before = evaluate("before", options.student, options)
    teacher = evaluate("teacher", options.teacher, options)
    make = supervise if options.method == SUPERVISED else distil
    model, seconds = make(options)
    after = evaluate("after", model, options)
    found = {
        **{name: str(value) for name, value in vars(options).items()},
        "seconds": seconds,
        "solved": {
            name: evaluation.summary.average.value
            for name, evaluation in (("teacher", teacher), ("before", before), ("after", after))
            if evaluation is not None
        },
    }
    (options.output / "found.json").write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found), flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("method", choices=[*METHODS, SUPERVISED])
    parser.add_argument("--student", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--rollouts", type=int, default=8, help="rollouts a step")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--problems", type=int, default=192, help="held-out problems")
    parser.add_argument("--only_after", action="store_true", help="evaluate what was trained alone")
    parser.add_argument("--settings", type=json.loads, default={}, help="others, as JSON")
    return parser.parse_args()


def evaluate(name: str, model: Any, options: argparse.Namespace) -> Evaluation | None:
    """On the held-out problems, at the demo's temperature."""
    if options.only_after and name != "after":
        return None
    folder = options.teacher if name == "teacher" else options.student
    loaded, tokenizer = load_model(str(folder), dtype=DTYPE)
    return evaluate_model(
        loaded if isinstance(model, str) else model,
        tokenizer,
        task("test", options.problems, seed=0),
        samples=1,
        temperature=0.7,
        top_p=1.0,
        max_new_tokens=MAX_TOKENS,
        output=options.output / f"{name}.jsonl",
        name=name,
    )


def distil(options: argparse.Namespace) -> tuple[Any, float]:
    """OPRD; the model, and the processor seconds of fit and training."""
    drawn = problems("train", options.steps * options.rollouts, seed=2 + options.seed)
    chosen: dict[str, Any] = {
        "output_dir": str(options.output / "run"),
        "overwrite": True,
        "teacher_tokenizer": "own",
        "bridge": "fit",
        "bridge_prompts": 64,
        "max_steps": options.steps,
        "per_device_train_batch_size": options.rollouts,
        "max_completion_length": MAX_TOKENS,
        "positions": "all",
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "cosine",
        "seed": options.seed,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        **METHODS[options.method],
        **options.settings,
    }
    began = time.process_time()
    trainer = OPRDTrainer(
        model=options.student,
        teacher_model=options.teacher,
        args=OPRDConfig(**chosen),
        train_dataset=Dataset.from_list([{"prompt": problem.prompt} for problem in drawn]),
    )
    trainer.train()
    return trainer.student, time.process_time() - began


def supervise(options: argparse.Namespace) -> tuple[Any, float]:
    """Fine-tuning on the teacher's text; the model, and the processor seconds of training alone."""
    drawn = problems("train", options.steps * options.rollouts, seed=2 + options.seed)
    texts = written(options.teacher, [problem.prompt for problem in drawn], options.seed)
    student, ours = load_model(options.student, dtype=DTYPE)
    seconds = train(
        student, sequences(ours, texts), steps=options.steps, learning_rate=options.learning_rate
    )
    return student.eval(), seconds


def written(teacher: str, prompts: list[str], seed: int) -> list[tuple[str, str]]:
    """Prompts with what a teacher writes to them at temperature 1, as rollouts are."""
    model, tokenizer = load_model(teacher, dtype=DTYPE)
    engine = TransformersEngine(model, tokenizer, batch_size=64)
    requests = [
        Request(prompt, 0, tuple(tokenizer(prompt)["input_ids"]), seed + number)
        for number, prompt in enumerate(prompts)
    ]
    sampling = Sampling(1, 1.0, 1.0, MAX_TOKENS, seed)
    responses = [one for batch in engine.generate(requests, sampling) for one in batch]
    return [(response.request.problem, response.text) for response in responses]


if __name__ == "__main__":
    main()
