"""Fixtures that runs of the trainer need here too."""

from tests.training.conftest import places

__all__ = ["places"]
