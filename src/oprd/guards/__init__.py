"""What keeps a run from losing what it has: signals, room on disk, finite numbers, rollouts."""
