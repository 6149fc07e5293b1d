"""Tasks, generation, grading and metrics."""
