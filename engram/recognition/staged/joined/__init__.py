"""Commons that stand side by side: sums, totals and solutions of each, and scores averaged over them."""
