"""Methods of others, for comparison only; they run in Avalanche (Lomonaco et al. 2021; the extra `benchmarks`).

Naming them here needs nothing; `benchmarks.baselines.learner` needs Avalanche.
"""
