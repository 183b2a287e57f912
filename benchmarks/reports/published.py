"""Published figures of the papers, in per cent.

The settings differ from those here in networks, epochs, stored data, and the meaning of "without id"; see `note`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """One published figure; None if the paper does not report it."""

    benchmark: str
    method: str
    source: str
    with_id: str | None = None
    without_id: str | None = None
    forgetting: str | None = None
    note: str = ""


_RMN = "RMN (arXiv 2102.11343), table 1"
_EIDETIC = "EideticNet (arXiv 2502.09500)"
_RERELRP = "ReReLRP (arXiv 2502.10789)"
_RNF = "RNF (arXiv 2205.01929)"

PUBLISHED = (
    Published(
        "split_mnist",
        "eidetic",
        f"{_EIDETIC}, table 7",
        with_id="99.0",
        without_id="98.4",
        note="means over the classes of its Taylor rows; a router trained on the data of all tasks",
    ),
    Published("split_mnist", "rmn", _RMN, without_id="99.5 ± 0.2", note="one pass for each task"),
    Published("split_mnist", "ewc", _RMN, without_id="63.1"),
    Published("permuted_mnist", "eidetic", f"{_EIDETIC}, table 3", with_id="98.31 ± 0.09"),
    Published("permuted_mnist", "ewc", f"{_EIDETIC}, table 3", with_id="97.0", note="of Kirkpatrick et al. 2017"),
    Published("permuted_mnist", "rmn", _RMN, without_id="97.73 ± 0.07", note="one pass for each task"),
    Published("permuted_mnist", "rnf", f"{_RNF}, section 4.2", with_id="75", note="naive fine-tuning there: 76.99"),
    Published(
        "split_cifar10",
        "eidetic",
        f"{_EIDETIC}, table 7",
        with_id="70.7",
        without_id="51.3",
        note="means over the classes of its Taylor rows; a small MLP, a router trained on the data of all tasks",
    ),
    Published("split_cifar10", "rerelrp", _RERELRP, without_id="about 40", forgetting="about 19", note="VGG-11"),
    Published("split_cifar10", "icarl", _RERELRP, without_id="about 23"),
    Published("split_cifar10", "ewc", _RERELRP, forgetting="87 to 91", note="of LwF, LwM and EWC"),
    Published("split_cifar100", "rmn", _RMN, with_id="70.0 ± 2.5", note="ten tasks in its text, five in its table"),
    Published("split_cifar100", "ewc", _RMN, with_id="60.2 ± 1.1"),
)
