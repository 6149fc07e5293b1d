"""What is tried of a student and its teacher before the first rollout."""

import copy
from functools import partial

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import TrainerCallback

from oprd.models.bind import check_pair, head_is_read
from oprd.models.probe import probe
from oprd.models.reader import Reader
from oprd.models.shared_base import teacher_adapter_active
from tests import tiny
from tests.models import zoo
from tests.models.test_adapters import saved
from tests.training.runs import LORA, largest_difference, trainer, weights

SAME = "have the same states: the loss will be 0"


def test_a_teacher_with_the_students_states_is_warned_of(tmp_path, caplog):
    student = tiny.model(seed=1)
    trainer(tmp_path, student=student, teacher=copy.deepcopy(student))
    assert SAME in caplog.text
    caplog.clear()
    trainer(tmp_path, student=tiny.model(seed=1), teacher=tiny.model(seed=2))
    assert SAME not in caplog.text


def test_an_untrained_adapter_on_the_students_base_is_warned_of_too(tmp_path, caplog):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tiny.model(seed=1).save_pretrained(base)
    tiny.tokenizer().save_pretrained(base)
    untrained = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA))
    untrained.peft_config["default"].base_model_name_or_path = str(base)
    untrained.save_pretrained(adapter)
    made = trainer(
        tmp_path / "run",
        student=str(base),
        teacher=str(adapter),
        peft_config=LoraConfig(**LORA),
    )
    assert made.shares_base and SAME in caplog.text


@pytest.mark.parametrize(("called", "same"), [("untrained", True), ("trained", False)])
def test_of_teachers_on_one_base_each_is_tried_with_its_own_adapter(called, same, caplog):
    base = get_peft_model(tiny.model(seed=1), LoraConfig(**LORA), "trained")
    for name, parameter in base.named_parameters():
        if "lora_" in name:
            parameter.data = torch.ones_like(parameter)
    base.add_adapter("untrained", LoraConfig(**LORA))
    teacher = Reader(base, partial(teacher_adapter_active, name=called), apart=True)
    given = ("a", "b"), ((1,), (1,))
    check_pair(tiny.model(seed=1), teacher, *given, heads=True, bridged=False)
    assert (SAME in caplog.text) == same


@pytest.mark.filterwarnings("ignore")
def test_a_base_is_shared_only_where_the_students_own_logits_stay_bit_for_bit(tmp_path):
    config = LoraConfig(**LORA, trainable_token_indices=[5, 6])
    adapter = saved(tmp_path, config, tie_word_embeddings=True)
    alone = tiny.model(seed=1, tie_word_embeddings=True)
    made = trainer(
        tmp_path / "run",
        student=str(tmp_path / "base"),
        teacher=adapter,
        peft_config=LoraConfig(**LORA),
    )
    assert not made.shares_base
    assert torch.equal(probe(made.student).logits, probe(alone).logits)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", ["object", "path"])
def test_a_teacher_of_virtual_tokens_is_refused(tmp_path, given):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    adapter = saved(tmp_path, config)
    teacher = get_peft_model(tiny.model(seed=1), config) if given == "object" else adapter
    with pytest.raises(ValueError, match="PROMPT_TUNING adapter, whose virtual tokens"):
        trainer(tmp_path / "run", teacher=teacher)


def test_a_head_that_its_configuration_misdescribes_is_refused_where_it_is_read(tmp_path):
    teacher = tiny.model(seed=2)
    teacher.config.logit_scale = 4.0
    with pytest.raises(ValueError, match="teacher's LM head as it is read gives other logits"):
        trainer(tmp_path, teacher=teacher, output_loss="reverse_kl")
    trainer(tmp_path, teacher=teacher)


@pytest.mark.parametrize("frozen", ["base", "adapter"])
def test_a_student_of_which_nothing_trains_is_refused_at_construction(tmp_path, frozen):
    student = tiny.model(seed=1)
    if frozen == "adapter":
        student = get_peft_model(student, LoraConfig(**LORA))
    student.requires_grad_(False)
    with pytest.raises(ValueError, match=r"no weight of the student trains.*is_trainable=True"):
        trainer(tmp_path, student=student)


class Breaking(TrainerCallback):
    """What an optimizer's step may leave behind."""

    def __init__(self, value: float) -> None:
        self.value = value

    def on_step_end(self, args, state, control, model=None, **kwargs):
        model.get_input_embeddings().weight.data[3, 1] = self.value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_student_that_the_last_step_broke_is_neither_trained_nor_saved(tmp_path, value):
    made = trainer(tmp_path, max_steps=1)
    made.add_callback(Breaking(value))
    broken = r"embed_tokens.weight on rank 0 is not finite after step 1: it is not saved"
    with pytest.raises(FloatingPointError, match=broken):
        made.train()
    with pytest.raises(FloatingPointError, match=broken):
        made.save_model(str(tmp_path / "saved"))
    assert not (tmp_path / "saved" / "model.safetensors").exists()


OUTPUT = {"representation_weight": 0.0, "output_loss": "reverse_kl"}


def pair(name: str) -> dict[str, torch.nn.Module]:
    return {"student": zoo.model(name, seed=1), "teacher": zoo.model(name, seed=2)}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("bert", "cannot find the blocks of BertModel"),
        ("gemma3n_text", "the student's states cannot be read"),
        ("bart", "padding before a sequence changes the student's states"),
    ],
)
def test_a_model_whose_states_are_elsewhere_is_refused_at_construction(tmp_path, name, problem):
    with pytest.raises(ValueError, match=problem):
        trainer(tmp_path, **pair(name))


@pytest.mark.filterwarnings("ignore")
def test_states_that_no_term_compares_are_not_looked_at(tmp_path):
    made = trainer(tmp_path, **pair("gemma3n_text"), **OUTPUT)
    before = weights(made.student)
    made.train()
    assert largest_difference(before, weights(made.student)) > 0
    with pytest.raises(ValueError, match="the student's states cannot be read"):
        trainer(tmp_path, **pair("gemma3n_text"), **OUTPUT, diagnostics_steps=1)


@pytest.mark.parametrize("options", [{}, OUTPUT, {"prefix_gradients": False}])
def test_llama_4_trains(tmp_path, options):
    made = trainer(tmp_path, **pair("llama4_text"), **options)
    before = weights(made.student)
    made.train()
    assert largest_difference(before, weights(made.student)) > 0


def test_a_head_that_computes_otherwise_than_it_is_read_is_known():
    model = zoo.model("gemma2")
    assert head_is_read(model) and head_is_read(tiny.model())
    # What caps logits in the model is no longer in what is read of it.
    model.config.final_logit_softcapping = None
    model.lm_head.register_forward_hook(lambda head, args, logits: 2 * logits)
    assert not head_is_read(model)
