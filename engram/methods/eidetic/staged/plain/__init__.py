"""Plain modules: a version in ordinary operations of PyTorch, for whoever has nothing of this project."""
