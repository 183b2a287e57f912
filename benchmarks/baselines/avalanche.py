"""Modules of Avalanche, imported beside any build of torch; nothing else imports Avalanche.

Avalanche imports torchvision, like zennit does; `engram.explain.zennit_import` lets that succeed beside a CPU-only
torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import warnings

from benchmarks.baselines.unsuited import Unsuited

if importlib.util.find_spec("avalanche") is None:
    raise Unsuited("the baselines run in Avalanche, which is not installed: pip install 'engram-vision[benchmarks]'")

importlib.import_module("engram.explain.zennit_import")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its warnings on import concern parts that are not used here
    benchmarks = importlib.import_module("avalanche.benchmarks")
    datasets = importlib.import_module("avalanche.benchmarks.utils")
    plugins = importlib.import_module("avalanche.training.plugins")
    supervised = importlib.import_module("avalanche.training.supervised")
