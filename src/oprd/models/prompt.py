"""The two forms of a prompt, as TRL has them."""

Message = dict[str, str]
# Plain text, or chat messages that a tokenizer's template renders.
Prompt = str | list[Message]
