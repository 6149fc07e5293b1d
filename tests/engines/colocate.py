"""A whole `oprd train` with vLLM in the same process; every rollout beside Transformers' own."""

import json
from functools import partial
from typing import Any

import torch
from trl.generation import vllm_generation

from tests.engines.process import command, flags

SETTINGS = {
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "max_completion_length": 12,
    "learning_rate": 0.05,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "optim": "sgd",
    "layers": "all",
    "report_to": "none",
    "dataloader_pin_memory": "false",
    "save_strategy": "no",
    "disable_tqdm": "true",
    # Greedy: of the likeliest token alone.
    "top_k": 1,
    "use_vllm": "true",
    "vllm_mode": "colocate",
}


def main(folder: str, settings: str) -> list[dict[str, Any]]:
    """Train on the models of a folder.

    Returns:
        of every generation batch the engine's completions and those of Transformers with the same
        weights and end tokens.
    """
    # Compiling on a CPU takes longer than all that is run here. What vLLM would choose for float32
    # is bfloat16, whose rounding tips the balance of tokens that are nearly as likely.
    options = {"enforce_eager": True, "dtype": "float32"}
    vllm_generation.LLM = partial(vllm_generation.LLM, **options)
    written: list[dict[str, Any]] = []
    generate = vllm_generation.VLLMGeneration.generate

    def beside_transformers(self: Any, **given: Any) -> Any:
        found = generate(self, **given)
        own = [transformers_own(self.model, ids, self) for ids in given["prompts"]]
        written.append({"vllm": [list(ids) for ids in found[1]], "transformers": own})
        return found

    vllm_generation.VLLMGeneration.generate = beside_transformers
    given = {**SETTINGS, **json.loads(settings)}
    given["output_dir"] = f"{folder}/out"
    for role in ("", "teacher_"):
        given.setdefault(f"{role}model_name_or_path", f"{folder}/{role or 'student_'}"[:-1])
    assert command("train", *flags(given)) == 0
    return written


def transformers_own(model: Any, prompt: list[int], engine: Any) -> list[int]:
    """What Transformers writes, greedily, up to and with the first end token."""
    training = model.training
    model.eval()
    with torch.no_grad():
        found = model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=engine.max_completion_length,
            do_sample=False,
            top_k=None,
            pad_token_id=0,
            temperature=None,
        )
    model.train(training)
    return found[0, len(prompt) :].tolist()
