# %% [markdown]
# # A first run, with models made on the spot
#
# A model of 120,000 weights learns to write digits backwards; a student is that model before it
# could, and its teacher is the model after. Half a minute on one processor core, no network. The
# folders `student` and `teacher`, the prompts and the task stay here: [the first five
# minutes](../start.md) use them too.
#
# The file is a notebook in the form of text: `jupytext --to ipynb first_run.py` makes a notebook
# of it, and `python first_run.py` runs it.

# %%
import json
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.manual_seed(0)
random.seed(0)

# %% [markdown]
# ## A tokenizer and a model
#
# Every character is a token; one more ends a text.

# %%
letters = "0123456789="
vocabulary = {letter: number for number, letter in enumerate([*letters, "<end>", "<pad>"])}
backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
backend.decoder = decoders.Fuse()
tokenizer = PreTrainedTokenizerFast(
    tokenizer_object=backend, eos_token="<end>", pad_token="<pad>", unk_token="<pad>"
)
config = LlamaConfig(
    vocab_size=len(vocabulary),
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    max_position_embeddings=64,
    bos_token_id=None,
    eos_token_id=tokenizer.eos_token_id,
    pad_token_id=tokenizer.pad_token_id,
)
model = LlamaForCausalLM(config)
print(f"{model.num_parameters():,} weights")

# %% [markdown]
# ## A teacher, and a student
#
# Both are one model at two moments of a supervised training: the student after 70 steps, the
# teacher after 300. That is the pair the method is made for: one shape, one origin, and one of
# them further on.


# %%
def backwards() -> str:
    """Six digits to ask for."""
    return "".join(random.choices("0123456789", k=6))


optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for step in range(1, 301):
    asked = [backwards() for _ in range(64)]
    rows = torch.tensor(tokenizer([f"{each}={each[::-1]}<end>" for each in asked])["input_ids"])
    labels = rows.clone()
    labels[:, :7] = -100
    model(rows, labels=labels).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    if step in (70, 300):
        folder = "student" if step == 70 else "teacher"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)

# %% [markdown]
# ## Prompts to train on, and a task to judge by
#
# The task is a file of Python: `prompts`, and `grade`, which says whether a response is right.

# %%
questions = {backwards() for _ in range(500)}
Path("prompts.jsonl").write_text(
    "".join(json.dumps({"prompt": f"{each}="}) + "\n" for each in sorted(questions))
)
Path("reversal.py").write_text(
    '''"""Six digits are written backwards."""

import random

_draw = random.Random(1)
_asked = ["".join(_draw.choices("0123456789", k=6)) for _ in range(100)]
prompts = [{"prompt": f"{each}=", "answer": each[::-1]} for each in _asked]


def grade(text: str, gold: str) -> bool:
    """Whether a response is the answer and nothing else."""
    return text.strip() == gold
'''
)

# %% [markdown]
# ## The run
#
# The student writes, the teacher reads what it wrote, and the student's states are pulled to the
# teacher's. No answer of `prompts.jsonl` is ever seen: it has none.

# %%
from datasets import load_dataset

from oprd import OPRDConfig, OPRDTrainer

trainer = OPRDTrainer(
    model="student",
    teacher_model="teacher",
    args=OPRDConfig(
        output_dir="runs/first",
        max_steps=100,
        per_device_train_batch_size=32,
        max_completion_length=8,
        learning_rate=2e-3,
        eval_tasks="reversal.py",
        eval_steps=50,
        logging_steps=10,
        save_strategy="no",
        use_cpu=True,
        report_to=[],
    ),
    train_dataset=load_dataset("json", data_files="prompts.jsonl", split="train"),
)
trainer.train()
trainer.save_model()

# %% [markdown]
# ## What it bought
#
# The share of the task's problems that are solved, four samples each, before the first step and
# after the last. `oprd report runs/first` puts it on a page, with the curves.

# %%
from oprd.runs.metrics import read_metrics

lines = [line for line in read_metrics(Path("runs/first")) if "eval/reversal/avg@4" in line]
for line in lines:
    print(f"step {line['step']}: {line['eval/reversal/avg@4']:.1%}")
before, after = lines[0]["eval/reversal/avg@4"], lines[-1]["eval/reversal/avg@4"]
assert after > before
