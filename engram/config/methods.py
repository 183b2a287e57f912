"""The settings of every method, validated, with documented defaults and the papers' values as named presets."""

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
"""For each method that a model can name, what it can be told."""
