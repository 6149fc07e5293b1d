"""A student that calls a tool: rollouts of several turns, supervised where the student wrote.

    python recipes/tools/tools.py --student Qwen/Qwen3-0.6B --teacher Qwen/Qwen3-1.7B

TRL runs the tool that the student calls, appends what it returned, and lets the student go on. Both
models read the whole exchange; what the tool returned is no student's token and is supervised by no
term. The two models differ in width, so that `state_loss="gram"` compares how the states of a
response are alike, which needs no bridge.

The run folder keeps rollouts in `samples.jsonl`, and

    oprd report runs/tools

shows them: the tool's words dotted, and the student's, of which each was supervised. Between models
of one width, or through a bridge, these are coloured by where the two models part.
"""

import argparse
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetInfo

from oprd import OPRDConfig, OPRDTrainer
from oprd.evaluation.tasks.load import generate_task

ASK = "Use the tool to work this out, then state the answer. "


def add(first: int, second: int) -> int:
    """Add two whole numbers.

    Args:
        first: The first number.
        second: The second number.

    Returns:
        Their sum.
    """
    return first + second


def main() -> None:
    options = parse_options()
    trainer = make_trainer(options.student, options.teacher, options.run, max_steps=options.steps)
    trainer.train()
    trainer.save_model()
    trainer.create_model_card()
    print(f"Student and rollouts: {options.run}. Look at them with: oprd report {options.run}")


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--student", default="Qwen/Qwen3-0.6B")
    parser.add_argument("--teacher", default="Qwen/Qwen3-1.7B")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--run", type=Path, default=Path("runs/tools"))
    return parser.parse_args()


def make_trainer(student: Any, teacher: Any, run: Path, **settings: Any) -> OPRDTrainer:
    """The recipe's trainer; `settings` win over its own."""
    chosen: dict[str, Any] = {
        "output_dir": str(run),
        "max_steps": 100,
        "per_device_train_batch_size": 8,
        "max_completion_length": 512,
        "max_tool_calling_iterations": 2,
        "positions": "all",
        "state_loss": "gram",
        "learning_rate": 1e-5,
        "chat_template_kwargs": {"enable_thinking": False},
        "sample_steps": 10,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
    }
    return OPRDTrainer(
        model=student,
        teacher_model=teacher,
        args=OPRDConfig(**{**chosen, **settings}),
        train_dataset=prompts(400),
        tools=[add],
    )


def prompts(count: int) -> Dataset:
    """Additions as questions of a chat."""
    task = generate_task("additions", "train", count)
    rows = [{"prompt": [{"role": "user", "content": ASK + question(row)}]} for row in task.rows()]
    return Dataset.from_list(rows, info=DatasetInfo(dataset_name=task.name))


def question(row: dict[str, Any]) -> str:
    prompt = row["prompt"]
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]


if __name__ == "__main__":
    main()
