"""The settings class of each method, by the method's name."""

from engram.config.base import MethodSettings
from engram.config.eidetic import EideticSettings
from engram.config.rerelrp import RerelrpSettings
from engram.config.rmn import RmnSettings
from engram.config.rnf import RnfSettings
from engram.config.sharc import SharcSettings

__all__ = ["SETTINGS", "MethodSettings"]

SETTINGS: dict[str, type[MethodSettings]] = {
    "eidetic": EideticSettings,
    "rnf": RnfSettings,
    "rerelrp": RerelrpSettings,
    "rmn": RmnSettings,
    "sharc": SharcSettings,
}
"""For each method that a definition can name, its settings, with defaults and the papers' values as presets."""
