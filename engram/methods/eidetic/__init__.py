"""EideticNet on blocks, the default method."""
