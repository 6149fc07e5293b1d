"""Bridges fitted on calibration rollouts, and judged on those held out."""
