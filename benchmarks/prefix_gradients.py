"""How far the gradient with `prefix_gradients=False` points away from the exact one.

    python benchmarks/prefix_gradients.py --student .cache/smollm2-135m-instruct

On the demo's pair and the student's own rollouts: the cosine of the two gradients and the ratio of
their norms, over all weights and by group of layers, with the last part of each response supervised
or all of it. The losses are compared too: they are equal. `oprd bench` measures what it costs,
and `accuracy.py` what it does to a run.
"""

import argparse
import statistics
from collections import defaultdict
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from oprd.core.capture import num_layers
from oprd.core.layers import pair_layers
from oprd.core.reduction import supervised_count
from oprd.core.states.comparison import LayerComparison
from oprd.evaluation.tasks import arithmetic
from oprd.models.load import load_model
from oprd.models.reading import View, read
from oprd.models.windowed import read_windowed

ROOT = Path(__file__).parents[1]
SHARES = (1.0, 0.5, 0.25)
Gradients = dict[str, Tensor]


def main() -> None:
    options = parse_options()
    torch.manual_seed(options.seed)
    student, tokenizer = load_model(options.student, dtype="float32")
    teacher, _ = load_model(options.teacher, base_model=options.base, dtype="float32")
    problems = arithmetic.problems(
        "train", options.batches * options.batch, seed=options.seed, subtraction=False
    )
    found: dict[tuple[float, str], list[tuple[float, float]]] = defaultdict(list)
    differences = []
    for first in range(0, len(problems), options.batch):
        prompts = [problem.prompt for problem in problems[first : first + options.batch]]
        ids, attention, response = rollouts(student, tokenizer, prompts, options)
        for share in SHARES:
            # The last part of each response, rounded up.
            rank, length = response.cumsum(dim=1), response.sum(dim=1, keepdim=True)
            positions = response & (rank > ((1 - share) * length).floor())
            count = supervised_count(positions)
            view = View.of_rollouts(ids, attention, response, positions)
            exact_loss, exact = gradients(student, teacher, view, count, True)
            loss, constant = gradients(student, teacher, view, count, False)
            differences.append(abs(loss / exact_loss - 1))
            for group, names in groups(student).items():
                a = torch.cat([constant[name].flatten() for name in names])
                b = torch.cat([exact[name].flatten() for name in names])
                cosine = torch.nn.functional.cosine_similarity(a, b, dim=0)
                found[share, group].append((float(cosine), float(a.norm() / b.norm())))
    print(
        f"{options.batches} batches of {options.batch} rollouts of up to {options.tokens} tokens; "
        f"largest relative difference of the losses {max(differences):.1e}"
    )
    print(f"{'supervised':12}{'weights':16}{'cosine':>8}{'min – max':>16}{'norm / exact':>14}")
    for (share, group), values in found.items():
        cosines, norms = zip(*values, strict=True)
        spread = f"{min(cosines):.3f} – {max(cosines):.3f}"
        print(
            f"{f'last {share:.0%}':12}{group:16}{statistics.median(cosines):>8.3f}{spread:>16}"
            f"{statistics.median(norms):>14.3f}"
        )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    base = str(ROOT / ".cache" / "smollm2-135m-instruct")
    parser.add_argument("--student", default=base)
    parser.add_argument("--teacher", default=str(ROOT / "recipes" / "demo" / "teacher"))
    parser.add_argument("--base", default=base, help="what the teacher is an adapter on")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=56, help="of a response, at most")
    parser.add_argument("--least_tokens", type=int, default=0, help="write on past the end")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


@torch.no_grad()
def rollouts(
    student: PreTrainedModel, tokenizer, prompts: list[str], options: argparse.Namespace
) -> tuple[Tensor, Tensor, Tensor]:
    """Ids and attention [B, T] of prompts and responses, and the responses' own mask [B, K]."""
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    lengths = {"max_new_tokens": options.tokens, "min_new_tokens": options.least_tokens}
    ids = student.generate(**inputs, **lengths, do_sample=True, temperature=1.0, top_k=0)
    ended = ids[:, inputs["input_ids"].shape[1] :] == tokenizer.eos_token_id
    response = ended.cumsum(dim=1) - ended.int() == 0
    return ids, torch.cat([inputs["attention_mask"], response.long()], dim=1), response


def gradients(
    student: PreTrainedModel,
    teacher: PreTrainedModel,
    view: View,
    count: Tensor,
    prefix_gradients: bool,
) -> tuple[float, Gradients]:
    """The loss over all layers and its gradient, by parameter."""
    depth = num_layers(student)
    pairs = pair_layers(range(1, depth + 1), depth, depth)
    layers = [pair.student for pair in pairs]
    with torch.no_grad():
        states = read(teacher, view, layers).states
    comparison = LayerComparison(states, pairs, view.rows)
    if prefix_gradients:
        read(student, view, layers, transform=comparison)
    else:
        read_windowed(student, view, layers, view.rows, transform=comparison)
    loss = comparison.result().loss.total / count
    named = {name: p for name, p in student.named_parameters() if "lm_head" not in name}
    return float(loss.detach()), dict(
        zip(named, torch.autograd.grad(loss, list(named.values())), strict=True)
    )


def groups(student: PreTrainedModel) -> dict[str, list[str]]:
    """Names of weights: all of them, the embedding, and each third of the blocks."""
    names = [name for name, _ in student.named_parameters() if "lm_head" not in name]
    depth = num_layers(student)
    found = {"all": names, "embedding": [name for name in names if "embed" in name]}
    for third in range(3):
        blocks = range(depth * third // 3, depth * (third + 1) // 3)
        inside = [name for name in names if any(f"layers.{b}." in name for b in blocks)]
        found[f"blocks {blocks[0] + 1}–{blocks[-1] + 1}"] = inside
    return found


if __name__ == "__main__":
    main()
