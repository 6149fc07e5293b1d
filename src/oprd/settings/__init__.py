"""Settings of a run, checked where they are made."""
