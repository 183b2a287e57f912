"""The commons, block 0: fixed features of images, random or learned from the first task."""

from engram.nn.commons.base import Commons
from engram.nn.commons.recipes import commons_of

__all__ = ["Commons", "commons_of"]
