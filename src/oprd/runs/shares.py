"""Steps that are given as a share of a run."""

# A share of the steps that is a whole number of them but for rounding.
_ROUNDING = 1e-9


def in_steps(given: float, length: int, least: int = 0) -> int:
    """Steps of so many, which are given as such or, below 1, as a share of them."""
    return int(given) if given >= 1 else max(int(given * length + _ROUNDING), least)
