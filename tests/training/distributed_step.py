"""One optimizer step on scripted rollouts; run in several processes by test_distributed."""

import sys
from pathlib import Path

import torch

from tests import tiny
from tests.training.runs import trainer


def main(folder: str, batch_size: str, options: str) -> None:
    extra = dict(option.split("=") for option in options.split(",") if option)
    untied = extra.pop("untied", None) is not None
    student = tiny.model(seed=1, tie_word_embeddings=not untied)
    made = trainer(
        Path(folder),
        student=student if "fsdp" in extra else student.double(),
        teacher=tiny.model(seed=2) if "fsdp" in extra else tiny.model(seed=2).double(),
        per_device_train_batch_size=int(batch_size),
        position_k=3,
        max_grad_norm=0.0,
        **extra,
    )
    made.train()
    loss = made.state.log_history[0]["loss"]
    state = made.accelerator.get_state_dict(made.model_wrapped)
    if made.accelerator.is_main_process:
        torch.save({"weights": state, "loss": loss}, Path(folder) / "result.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
