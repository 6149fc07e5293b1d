"""How a student is used, in Python."""

import json

CHAT = """\
messages = [{"role": "user", "content": "What is 47 + 86?"}]
inputs = tokenizer.apply_chat_template(
    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
)"""
TEXT = 'inputs = tokenizer("What is 47 + 86?", return_tensors="pt")'


def snippet(*, adapter: bool, chat: bool, hub_id: str | None) -> str:
    """The lines that load a student and let it answer, as its card shows them."""
    kind = "AutoPeftModelForCausalLM" if adapter else "AutoModelForCausalLM"
    imports = (
        f"from peft import {kind}\nfrom transformers import AutoTokenizer"
        if adapter
        else f"from transformers import {kind}, AutoTokenizer"
    )
    where = json.dumps(hub_id) if hub_id else '"."  # the folder that holds this card'
    return f"""\
{imports}

name = {where}
tokenizer = AutoTokenizer.from_pretrained(name)
model = {kind}.from_pretrained(name)
{CHAT if chat else TEXT}
output = model.generate(**inputs, max_new_tokens=128)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))"""
