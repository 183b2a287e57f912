"""The import of Avalanche, which nothing else imports.

Avalanche imports torchvision, like zennit does; `engram.explain.zennit_import` lets that succeed beside a CPU-only
torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings

from benchmarks.baselines.unsuited import Unsuited

if importlib.util.find_spec("avalanche") is None:
    raise Unsuited("the baselines run in Avalanche, which is not installed: pip install 'engram[benchmarks]'")

importlib.import_module("engram.explain.zennit_import")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what it says on import is about parts that are not used here
    benchmarks = importlib.import_module("avalanche.benchmarks")
    datasets = importlib.import_module("avalanche.benchmarks.utils")
    plugins = importlib.import_module("avalanche.training.plugins")
    supervised = importlib.import_module("avalanche.training.supervised")
