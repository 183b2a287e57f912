"""Agreement of two kinds of evidence that see the same image: how much each counts beside the other."""

from __future__ import annotations

CORRELATION = 0.8
"""Of what stage one and a detector get wrong, within a class: they see the same image."""


def weights(first: float, second: float, correlation: float = CORRELATION) -> tuple[float, float]:
    """What two log-odds are multiplied with before they are added.

    Those of Gaussians with a common covariance (Fisher 1936), each evidence being standardised: as much as each adds
    to the other. Where the second adds nothing, the first counts alone.

    Parameters
    ----------
    first, second
        How far apart the two sides are in each, in standard deviations. The second counts as no farther than the first:
        a network has learned by heart the images that its distances are taken of.
    """
    second = min(first, second)
    if second <= correlation * first:
        return 1.0, 0.0
    rest = 1 - correlation**2
    return (1 - correlation * second / first) / rest, (1 - correlation * first / second) / rest
