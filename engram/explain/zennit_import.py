"""Import of zennit beside any build of PyTorch: it imports torchvision, which needs help with that."""

from __future__ import annotations

import importlib

from engram.nn.pretrained.zoos.torchvision_import import import_torchvision

import_torchvision()

attribution = importlib.import_module("zennit.attribution")
composites = importlib.import_module("zennit.composites")
core = importlib.import_module("zennit.core")
rules = importlib.import_module("zennit.rules")
