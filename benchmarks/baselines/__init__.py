"""Methods of others, for comparison only; they run in Avalanche (Lomonaco et al. 2021; the extra `benchmarks`).

Naming them here needs nothing; `benchmarks.baselines.learner` needs Avalanche.
"""

BASELINES = {
    "naive": "fine-tuning on one task after another",
    "joint": "training on all tasks at once",
    "ewc": "Elastic Weight Consolidation (Kirkpatrick et al. 2017)",
    "lwf": "Learning without Forgetting (Li and Hoiem 2016)",
    "icarl": "iCaRL (Rebuffi et al. 2017)",
    "replay": "experience replay of stored images (Rolnick et al. 2019)",
}
"""Each with what it is."""
