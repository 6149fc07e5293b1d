"""What the student writes: for which prompts, when and how long, and what of it is supervised."""
