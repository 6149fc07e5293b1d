"""Tasks: prompts with gold answers, and how an answer is graded."""
