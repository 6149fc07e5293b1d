"""Losses on hidden states, one a file, and their comparison layer by layer."""
