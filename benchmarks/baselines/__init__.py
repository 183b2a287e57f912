"""Baseline methods for comparison, run by Avalanche (Lomonaco et al. 2021; the extra `benchmarks`).

Their names are in `benchmarks.harness.presets`; only `benchmarks.baselines.learner` needs Avalanche.
"""
