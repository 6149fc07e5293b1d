"""Fitting a bridge between two models: rollouts, both models' states on them, one exact solve."""
