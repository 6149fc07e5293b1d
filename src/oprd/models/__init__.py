"""A Transformers model to us: loading, writing, reading, its head and its tokenizer."""
