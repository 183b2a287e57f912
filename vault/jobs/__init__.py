"""Learning jobs in the store: records, index, attempts, checkpoints and decisions."""
