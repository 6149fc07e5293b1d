"""What two models have in common before any training, and what that advises."""
