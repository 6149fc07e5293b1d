"""On-policy representation distillation of language models."""
