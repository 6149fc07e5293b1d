"""The command line. Importing it imports no model library."""
