"""Teachers: where they come from, and how they read what the student wrote."""
