"""Optional dependencies, with one clear sentence where one is missing."""

import importlib
from types import ModuleType


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Raises:
        ImportError: it is not installed; the message carries the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        name = module.split(".")[0]
        raise ImportError(
            f"{purpose} needs {name}, which is not installed: pip install 'oprd[{extra}]'."
        ) from error
