"""Losses and measurements on next-token distributions, from last hidden states and LM heads."""
