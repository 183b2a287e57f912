"""Classes of models: their numbers, which never change, and the names that versions show of them."""
