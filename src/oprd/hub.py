"""The Hugging Face hub: whether it answers at all.

Its client, and every library over it, tries again for half a minute at each file that is not in the
cache. So the hub is asked once before, for as long as its client waits for one answer.
"""

import time
from functools import lru_cache
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import get_session

from oprd.log import get_logger

logger = get_logger(__name__)

# Seconds for which an answer holds.
HOLDS = 60


def only_cached(name: str) -> bool:
    """Whether what has a name on the hub can be had from the cache alone.

    It is what Transformers' `local_files_only` takes.

    Args:
        name: a hub id, or the path of what is here, for which nobody is asked.
    """
    return not Path(name).exists() and not _answers(
        constants.ENDPOINT, int(time.monotonic() // HOLDS)
    )


def warn_of_waiting(name: str) -> None:
    """Say that the hub does not answer, before a library that cannot be told keeps asking it.

    Args:
        name: see `only_cached`.
    """
    if not constants.HF_HUB_OFFLINE and only_cached(name):
        logger.warning(
            f"{constants.ENDPOINT} does not answer: it is asked for {name!r} a few times more, for "
            "about half a minute, before the cache is looked at. HF_HUB_OFFLINE=1 spares that."
        )


@lru_cache(maxsize=1)
def _answers(endpoint: str, _at: int) -> bool:
    """Whether anything comes back, be it a refusal."""
    try:
        get_session().head(endpoint, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except Exception:  # of the client's HTTP library, which is another one from version to version
        return False
    return True
