"""A run's files: its record, metrics, checkpoints, and rows that are written one by one."""
