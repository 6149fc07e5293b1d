"""What only comparisons need: trainers of the package with one thing changed."""
