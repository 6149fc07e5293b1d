"""Make the demo's teacher: a LoRA adapter on SmolLM2-135M-Instruct that solves two-digit sums.

    python recipes/demo/make_teacher.py --steps 360

Supervised fine-tuning on worked solutions with TRL's SFTTrainer; about an hour on two CPU cores.
The adapter in `recipes/demo/teacher` was made by this script. It never sees a problem of the test
split.
"""

import argparse
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from smollm2 import HUB_ID, base_model_folder
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from oprd.evaluation.tasks import arithmetic

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=360)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=2e-3)
    parser.add_argument("--cache", type=Path, default=HERE.parents[1] / ".cache")
    parser.add_argument("--output", type=Path, default=HERE / "teacher")
    options = parser.parse_args()

    base = base_model_folder(options.cache)
    problems = arithmetic.problems("train", options.steps * options.batch_size, seed=1)
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(base),
        train_dataset=Dataset.from_list(
            [{"prompt": p.prompt, "completion": p.solution} for p in problems]
        ),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"),
        args=SFTConfig(
            output_dir=str(options.cache / "teacher-run"),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=20,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=True,
            loss_type="chunked_nll",
            logging_steps=10,
            save_steps=40,
            save_total_limit=2,
            report_to=[],
            seed=1,
        ),
    )
    trainer.train()
    save_adapter(trainer, options.output)


def save_adapter(trainer: SFTTrainer, folder: Path) -> None:
    """Write the adapter in bfloat16, naming its base by hub id rather than by a local path."""
    trainer.model.peft_config["default"].base_model_name_or_path = HUB_ID
    trainer.model.save_pretrained(folder)
    file = folder / "adapter_model.safetensors"
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(file).items()}
    save_file(tensors, file, metadata={"format": "pt"})


if __name__ == "__main__":
    main()
