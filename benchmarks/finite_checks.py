"""What it costs a step that a run stops where something is not finite.

    python benchmarks/finite_checks.py --steps 60

Steps of one run, by turns with the checks and without them: states, losses and the norm of the
gradient. The look at the weights is timed beside, as the share of a save that it takes. Rollouts
are given, so that a step is two forward passes, one backward and the optimizer's.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from oprd import OPRDConfig, OPRDTrainer
from oprd.cli.tiny import byte_tokenizer


class Turns(TrainerCallback):
    """Times each step, every second one without checks."""

    def __init__(self, trainer: OPRDTrainer) -> None:
        self.finite, self.seconds = trainer._finite, ([], [])
        # Of each step that looks, in all checks together.
        self.inside: list[float] = []
        self.checks = {
            name: self.timing(getattr(self.finite, name)) for name in ("check_sums", "check_norm")
        }

    def timing(self, check: Any) -> Any:
        """The same, with its time noted."""

        def timed_check(*args: Any, **options: Any) -> None:
            self.within += timed(lambda: check(*args, **options))

        return timed_check

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look, or do not, by turns."""
        for name, check in self.checks.items():
            setattr(self.finite, name, nothing if state.global_step % 2 else check)
        self.within, self.began = 0.0, time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        took = time.perf_counter() - self.began
        # The first two also allocate.
        if state.global_step > 2:
            self.seconds[(state.global_step - 1) % 2].append(took)
            if state.global_step % 2:
                self.inside.append(self.within)


def nothing(*args: Any, **options: Any) -> None:
    pass


def main() -> None:
    options = parse_options()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make(folder, options)
        turns = Turns(trainer)
        trainer.add_callback(turns)
        trainer.train()
        for name, check in turns.checks.items():
            setattr(turns.finite, name, check)
        looks, saves = [], []
        for _ in range(7):
            saves.append(timed(lambda: trainer.save_model(folder)))
            looks.append(timed(trainer._finite.check_student))
    ratios = [a / b for a, b in zip(*turns.seconds, strict=False)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    print(f"{sum(p.numel() for p in trainer.student.parameters()):,} weights")
    print(f"step without checks: {statistics.median(turns.seconds[1]) * 1000:.1f} ms")
    print(
        f"with / without, {len(ratios)} pairs: median {middle:.4f}, quartiles {low:.4f}-{high:.4f}"
    )
    print(f"inside the checks: {statistics.median(turns.inside) * 1000:.3f} ms a step")
    print(f"weights: {statistics.median(looks) * 1000:.2f} ms of a save of "
          f"{statistics.median(saves) * 1000:.1f} ms")  # fmt: skip


def timed(act: Any) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began


def make(folder: str, options: argparse.Namespace) -> OPRDTrainer:
    tokenizer = byte_tokenizer()
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=options.width,
            intermediate_size=3 * options.width,
            num_hidden_layers=options.layers,
            num_attention_heads=8,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        models.append(LlamaForCausalLM(config))
    trainer = OPRDTrainer(
        model=models[0],
        teacher_model=models[1],
        args=OPRDConfig(
            output_dir=str(Path(folder)),
            max_steps=options.steps,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_completion_length=options.tokens,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            logging_steps=options.steps,
        ),
        train_dataset=Dataset.from_dict({"prompt": [f"{n} + {n}?" for n in range(64)]}),
        processing_class=tokenizer,
        teacher_processing_class=tokenizer,
    )
    generator = torch.Generator().manual_seed(0)
    trainer.rollouts.write = lambda prompts: [
        torch.randint(0, 256, (options.tokens,), generator=generator).tolist() for _ in prompts
    ]
    return trainer


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    return parser.parse_args()


if __name__ == "__main__":
    main()
