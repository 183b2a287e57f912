"""Staged EideticNet: its method, and how it learns, serves and is stored."""
