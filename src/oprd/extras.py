"""Optional dependencies, with one clear sentence where one is missing."""

import importlib
import importlib.util
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
        raise _missing(module, extra, purpose) from error


def check_installed(module: str, extra: str, purpose: str) -> None:
    """Refuse what another library will import, without importing it here.

    Raises:
        ImportError: as `require`.
    """
    if importlib.util.find_spec(module) is None:
        raise _missing(module, extra, purpose)


def _missing(module: str, extra: str, purpose: str) -> ImportError:
    name = module.split(".")[0]
    return ImportError(
        f"{purpose} needs {name}, which is not installed: pip install 'oprd[{extra}]'."
    )
