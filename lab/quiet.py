"""Silence: the lab says itself what it makes."""

import warnings

from transformers.utils import logging


def quieten() -> None:
    """Leave out the progress of libraries and their own renamings, which are no news here."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
