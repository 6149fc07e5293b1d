"""A student that knows how sums are written and cannot add yet: a few supervised steps.

    python recipes/families/make_student.py --output runs/families/student

The teacher of `make_teacher.py` knows worked solutions alone, and what it says of other texts is of
no use. So the student is given their form first, by `--steps` on some of them.
"""

import argparse
from pathlib import Path

import torch
from sums import problems
from supervised import sequences, train

from oprd.models.load import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="HuggingFaceTB/SmolLM2-135M-Instruct")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    options = parser.parse_args()

    torch.manual_seed(1)
    model, tokenizer = load_model(options.base, dtype="float32")
    drawn = problems("train", options.steps * options.batch_size, seed=9)
    given = sequences(tokenizer, [(problem.prompt, problem.solution) for problem in drawn])
    train(model, given, steps=options.steps, learning_rate=options.learning_rate)
    model.save_pretrained(options.output)
    tokenizer.save_pretrained(options.output)


if __name__ == "__main__":
    main()
