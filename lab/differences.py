"""How far methods are apart, by what a comparison found."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from lab.results import Curve, Estimate


def areas(found: Mapping[str, Any], method: str) -> list[float]:
    """The areas under the curves of a method's accuracy by step, one a seed."""
    curves = found["methods"][method]["curves"]
    return [Curve(np.array(c["steps"]), np.array(c["accuracy"])).area for c in curves]


def area_difference(found: Mapping[str, Any], first: str, second: str) -> Estimate:
    """How much larger the area of one method is than that of another, paired by seed."""
    pairs = zip(areas(found, first), areas(found, second), strict=True)
    return Estimate.of(a - b for a, b in pairs)


def end_difference(found: Mapping[str, Any], first: str, second: str) -> Estimate:
    """How much higher the reported accuracy of one method is than that of another, by seed."""
    of_first, of_second = (found["methods"][method]["scores"] for method in (first, second))
    pairs = zip(of_first, of_second, strict=True)
    return Estimate.of(a["accuracy"] - b["accuracy"] for a, b in pairs)
