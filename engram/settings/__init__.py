"""The settings of every method, validated, with documented defaults and the papers' values as named presets."""

from engram.settings.base import MethodSettings
from engram.settings.eidetic import EideticSettings
from engram.settings.rerelrp import RerelrpSettings
from engram.settings.rmn import RmnSettings
from engram.settings.rnf import RnfSettings
from engram.settings.sharc import SharcSettings

__all__ = ["SETTINGS", "MethodSettings"]

SETTINGS: dict[str, type[MethodSettings]] = {
    "eidetic": EideticSettings,
    "rnf": RnfSettings,
    "rerelrp": RerelrpSettings,
    "rmn": RmnSettings,
    "sharc": SharcSettings,
}
"""For each method that a model can name, what it can be told."""
