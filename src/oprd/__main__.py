"""`python -m oprd`, for launchers that start a module."""

from oprd.cli.main import app

app()
