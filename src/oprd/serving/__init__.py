"""A teacher's states from an inference server: what writes them there, and what asks for them."""
