"""Jobs in the store: records, index, attempts, checkpoints and decisions."""
