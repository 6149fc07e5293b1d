"""Tables and plots from run folders: files in, files out."""
