"""Prompts, from where they stand to what a model can read."""
