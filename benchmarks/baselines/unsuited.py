"""Exception for baselines that cannot run."""


class Unsuited(Exception):
    """The baseline is not defined for these tasks, or lacks a requirement; the message is shown to the user."""
