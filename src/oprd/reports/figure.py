"""An empty picture, where matplotlib is installed."""

from typing import Any

from oprd.extras import require


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure of so many inches.

    Raises:
        ImportError: matplotlib is not installed.
    """
    kind = require("matplotlib.figure", "report", "a picture").Figure
    return kind(figsize=(width, height), layout="constrained")
