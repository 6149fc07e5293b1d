"""Both models on rollouts of the student, before training."""
