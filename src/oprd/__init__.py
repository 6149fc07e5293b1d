"""On-policy representation distillation of language models."""

from typing import TYPE_CHECKING, Any

from oprd.version import __version__

if TYPE_CHECKING:
    from oprd.settings.run import OPRDConfig
    from oprd.training.trainer import OPRDTrainer

__all__ = ["OPRDConfig", "OPRDTrainer", "__version__"]

# Loaded at first use: importing the core must not import Transformers and TRL.
_LAZY = {"OPRDConfig": "oprd.settings.run", "OPRDTrainer": "oprd.training.trainer"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'oprd' has no attribute {name!r}")
    from importlib import import_module

    from oprd.supported import check_transformers

    check_transformers()
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return __all__
