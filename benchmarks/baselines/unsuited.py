"""Why a baseline cannot run."""


class Unsuited(Exception):
    """It is not defined for these tasks, or lacks what it needs; the text is for the person who asked for it."""
