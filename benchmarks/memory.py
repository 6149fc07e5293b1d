"""How near the memory that is told before the first step is to what a run takes.

Each case in a process of its own, as a user's is: two steps, in the second of which the optimizer's
states are there.

    python benchmarks/memory.py
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
from datasets import Dataset
from transformers import AutoTokenizer

from oprd import OPRDConfig, OPRDTrainer
from oprd.analysis.peak import estimate_run
from oprd.analysis.shapes import random_model

sys.path.insert(0, str(Path(__file__).parents[1] / "recipes" / "demo"))
from smollm2 import base_model_folder

MIB = 2**20
CACHE = Path(__file__).parents[1] / ".cache"
LORA = {"r": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
# Shape, blocks, adapter, settings.
CASES: dict[str, tuple[str, int | None, bool, dict[str, Any]]] = {
    "SmolLM2-135M": ("smollm2-135m", None, False, {}),
    "SmolLM2-135M, checkpointing": (
        "smollm2-135m", None, False, {"gradient_checkpointing": True, "max_completion_length": 512}
    ),
    "SmolLM2-135M, LoRA": ("smollm2-135m", None, True, {}),
    "Qwen2.5-0.5B, 6 blocks": ("qwen2.5-0.5b", 6, False, {}),
    "Qwen3-0.6B, 4 blocks, reverse KL": (
        "qwen3-0.6b", 4, False, {"output_loss": "reverse_kl", "output_weight": 1.0}
    ),
}  # fmt: skip


def measure(name: str) -> dict[str, float]:
    """One case, in this process."""
    shape, blocks, adapter, settings = CASES[name]
    tokenizer = AutoTokenizer.from_pretrained(base_model_folder(CACHE))
    with tempfile.TemporaryDirectory() as folder:
        given = {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "max_completion_length": 192,
            "gradient_checkpointing": False,
            **settings,
        }
        # Random weights may end a response at once.
        given["generation_kwargs"] = {"min_new_tokens": given["max_completion_length"]}
        trainer = OPRDTrainer(
            model=random_model(shape, layers_count=blocks),
            teacher_model=random_model(shape, layers_count=blocks, seed=1),
            processing_class=tokenizer,
            args=OPRDConfig(
                output_dir=folder,
                max_steps=2,
                use_cpu=True,
                report_to=[],
                save_strategy="no",
                disable_tqdm=True,
                **given,
            ),
            train_dataset=Dataset.from_dict({"prompt": ["word " * 60] * 16}),
            peft_config=_lora() if adapter else None,
        )
        need = estimate_run(trainer)
        before = psutil.Process().memory_info().rss
        trainer.train()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "before": before / MIB,
        "told": (before + need.coming) / MIB,
        "measured": peak / MIB,
        **{part: size / MIB for part, size in vars(need).items()},
    }


def _lora() -> Any:
    from peft import LoraConfig

    return LoraConfig(**LORA)


def main() -> None:
    """Print a table."""
    if sys.argv[1:]:
        print(json.dumps(measure(sys.argv[1])))
        return
    print("| run | before, MiB | told | measured | told / measured |\n|---|---|---|---|---|")
    for name in CASES:
        output = subprocess.run(
            [sys.executable, __file__, name], capture_output=True, text=True, check=True
        ).stdout
        found = json.loads(output.splitlines()[-1])
        ratio = found["told"] / found["measured"]
        cells = [f"{found[part]:,.0f}" for part in ("before", "told", "measured")]
        print(f"| {name} | {' | '.join(cells)} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
