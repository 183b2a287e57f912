"""Agreement of two kinds of evidence that see the same image: how much each counts beside the other."""

from __future__ import annotations

CORRELATION = 0.6
"""Of what stage one and a detector get wrong, within a class."""


def weights(first: float, second: float, correlation: float = CORRELATION) -> tuple[float, float]:
    """What two log-odds are multiplied with before they are added.

    Those of Gaussians with a common covariance (Fisher 1936), each evidence being standardised: as much as each adds
    to the other. Evidence that adds nothing counts for nothing, and the other alone.

    Parameters
    ----------
    first, second
        How far apart the two sides are in each, in standard deviations.
    """
    if second <= correlation * first:
        return 1.0, 0.0
    if first <= correlation * second:
        return 0.0, 1.0
    rest = 1 - correlation**2
    return (1 - correlation * second / first) / rest, (1 - correlation * first / second) / rest
