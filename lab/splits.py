"""Which problems are held out, whatever the seeds that draw them."""

import hashlib

# One problem in this many.
TEST_SHARE = 10


def held_out(problem: str) -> bool:
    """Whether a problem is for testing, by a hash of its text: so that none is in both splits."""
    return int(hashlib.sha256(problem.encode()).hexdigest(), 16) % TEST_SHARE == 0
