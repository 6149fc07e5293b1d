# %% [markdown]
# # Look at two pairs, and decide
#
# `student` and `teacher` of [the first notebook](first_run.py) are two moments of one training.
# Here a second teacher is made, larger and of another origin, and `oprd inspect` says what each
# pair has in common and how to train it. Then both advices are followed. Two minutes on one
# processor core.

# %%
import json
import random
import subprocess
import sys
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

tokenizer = AutoTokenizer.from_pretrained("student")


def oprd(*arguments: str) -> None:
    """A command, as one writes it in a terminal."""
    subprocess.run([sys.executable, "-m", "oprd", *arguments], check=True)


# %% [markdown]
# ## A larger teacher
#
# Four layers of width 96 in the place of three of 64, trained from its own random weights: it has
# never been the student, so that its states have other coordinates.

# %%
torch.manual_seed(7)
random.seed(7)
larger = LlamaForCausalLM(
    LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
)
optimizer = torch.optim.AdamW(larger.parameters(), 3e-3)
for _ in range(300):
    asked = ["".join(random.choices("0123456789", k=6)) for _ in range(64)]
    rows = torch.tensor(tokenizer([f"{each}={each[::-1]}<end>" for each in asked])["input_ids"])
    labels = rows.clone()
    labels[:, :7] = -100
    larger(rows, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
larger.save_pretrained("larger")
tokenizer.save_pretrained("larger")

# %% [markdown]
# ## Look
#
# Each inspection lets the student answer 64 prompts, reads the answers with both models, and
# leaves figures (`inspect.json`), a picture and the settings of a run (`train.yaml`).

# %%
for teacher, folder in (("teacher", "near"), ("larger", "far")):
    oprd(
        *("inspect", "--student", "student", "--teacher", teacher, "--prompts", "prompts.jsonl"),
        *("--max_completion_length", "8", "--output", folder),
    )

# %% [markdown]
# ## Decide
#
# One shape and one origin: the student's states to the teacher's. Another shape: the
# distributions (reverse KL), and the states beside it through a bridge. The reasons stand with
# the advice.

# %%
advised = {}
for folder in ("near", "far"):
    found = json.loads(Path(folder, "inspect.json").read_text())
    advised[folder] = found["advice"]["settings"]
    print(f"{folder}: {found['advice']['method']}")
    print(json.dumps(found["advice"]["settings"], indent=2))

assert "output_loss" not in advised["near"]
assert (advised["far"]["output_loss"], advised["far"]["bridge"]) == ("reverse_kl", "fit")

# %% [markdown]
# ## Follow both
#
# `train.yaml` is all that a run needs; flags win over it. The task is asked before the first step
# and after the last, and the figures stand in `metrics.jsonl`.

# %%
from oprd.runs.metrics import read_metrics

for folder in ("near", "far"):
    oprd(
        *("train", "--config", f"{folder}/train.yaml", "--max_steps", "100", "--overwrite"),
        *("--per_device_train_batch_size", "32", "--gradient_accumulation_steps", "1"),
        *("--eval_tasks", "reversal.py", "--eval_steps", "100", "--save_strategy", "no"),
        *("--use_cpu", "--logging_steps", "10"),
    )
    lines = [line for line in read_metrics(Path(folder, "run")) if "eval/reversal/avg@4" in line]
    solved = [f"{line['eval/reversal/avg@4']:.1%} at step {line['step']}" for line in lines]
    print(f"{folder}: {', '.join(solved)}")
