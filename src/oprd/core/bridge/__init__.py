"""OPRD-Bridge: linear maps into a shared space for models of any depth and width (Eqs. 11–15)."""

from oprd.core.bridge.bridge import Bridge
from oprd.core.bridge.fit import BridgeFitter

__all__ = ["Bridge", "BridgeFitter"]
