import pytest
import torch
from torch.nn.functional import cross_entropy

from lab.methods import METHODS
from lab.tokens import SUPERVISED
from lab.variants.supervised import Supervised
from tests import tiny
from tests.models.built_tokenizers import sentencepiece
from tests.training.runs import PROMPTS, scripted, trainer
from tests.training.teachers.test_own_tokens import teacher

OPTIONS = {**METHODS[SUPERVISED], "scale": None}


@pytest.mark.parametrize("size", [8, 2])
def test_the_loss_is_the_mean_cross_entropy_of_what_is_written_however_it_is_split(tmp_path, size):
    student, prompts = tiny.model(seed=1), PROMPTS[:8]
    total, count = torch.zeros(()), 0
    for prompt in prompts:
        ids = tiny.tokenizer()(prompt)["input_ids"]
        response = torch.tensor(scripted(ids))
        with torch.no_grad():
            logits = student(torch.tensor([[*ids, *response.tolist()]])).logits[0]
        total += cross_entropy(logits[len(ids) - 1 : -1], response, reduction="sum")
        count += len(response)
    made = trainer(
        tmp_path,
        student=student,
        teacher=teacher(sentencepiece()),
        reads_with=sentencepiece(),
        kind=Supervised,
        prompts=prompts,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=8 // size,
        **OPTIONS,
    )
    made.train()
    assert made.state.log_history[0]["loss"] == pytest.approx(float(total) / count, rel=1e-4)
