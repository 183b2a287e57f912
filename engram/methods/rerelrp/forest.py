"""Random forest of two classes as plain tensors, grown by scikit-learn and evaluated without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from engram.checkpointing.progress import Reporter
from engram.errors import DamagedSnapshot

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

LEAF = -1
"""The feature that leaves have."""

GROWN_AT_ONCE = 25
"""Trees between two looks at whether to stop."""

ASKED_AT_ONCE = 256
"""Rows that go down all trees together: more would fall out of the processor's cache."""


@dataclass(frozen=True)
class ForestSize:
    """Number of trees of a forest, their depth, and the size of their leaves."""

    trees: int = 300
    depth: int = 40
    leaf: int = 5
    """Samples that each leaf has at least."""


@dataclass(frozen=True)
class Forest:
    """A random forest (Breiman 2001) that tells two classes apart; all trees lie one after another, root first.

    A node's left child is the node after it, which is how depth-first growth numbers them: only the right is stored.

    Parameters
    ----------
    feature
        (nodes,) int16: which feature an inner node looks at; `LEAF` for leaves.
    value
        (nodes,) float32: the largest value that an inner node sends left; for leaves the share of the second class.
    right
        (nodes,) int32: the right child of an inner node; leaves have themselves.
    roots
        (trees,) int32.
    """

    feature: Tensor
    value: Tensor
    right: Tensor
    roots: Tensor

    @classmethod
    def grow(
        cls, rows: Tensor, positive: Tensor, weights: Tensor, growth: ForestSize, seed: int, reporter: Reporter
    ) -> Self:
        """Grow on rows (N, F) float32, whose second class is where `positive` (N,) bool is true.

        Parameters
        ----------
        weights
            (N,): how much each row counts.

        Raises
        ------
        Cancelled
        """
        from sklearn.ensemble import RandomForestClassifier  # takes a second to import, and only learning needs it

        kind = RandomForestClassifier(
            max_depth=growth.depth, min_samples_leaf=growth.leaf, random_state=seed % 2**32, warm_start=True, n_jobs=1
        )
        given = rows.numpy(), positive.numpy(), weights.double().numpy()
        for done in range(0, growth.trees, GROWN_AT_ONCE):
            reporter.check()
            kind.set_params(n_estimators=min(done + GROWN_AT_ONCE, growth.trees))
            kind.fit(given[0], given[1], sample_weight=given[2])
        return cls.of(kind)

    @classmethod
    def of(cls, grown: RandomForestClassifier) -> Self:
        """The tensors of a fitted forest of two classes."""
        assert len(grown.classes_) == 2, f"a forest tells two classes apart, not {len(grown.classes_)}"
        parts = [_tree(estimator.tree_) for estimator in grown.estimators_]
        sizes = torch.tensor([len(feature) for feature, _, _ in parts])
        roots = sizes.cumsum(0) - sizes  # (trees,)
        right = [child + int(root) for (_, _, child), root in zip(parts, roots, strict=True)]
        return cls(
            torch.cat([feature for feature, _, _ in parts]),
            torch.cat([value for _, value, _ in parts]),
            torch.cat(right).int(),
            roots.int(),
        )

    def probability(self, rows: Tensor) -> Tensor:
        """(B,) float32: the share of the second class for rows (B, F) float32, the mean over the trees."""
        return torch.cat([self._asked(part) for part in torch.split(rows, ASKED_AT_ONCE)])

    def _asked(self, rows: Tensor) -> Tensor:
        node = self.roots[None].expand(len(rows), -1)  # (b, trees)
        while True:
            looked = self.feature[node].long()  # (b, trees)
            inner = looked != LEAF
            if not inner.any():
                return self.value[node].double().mean(1).float()  # (b,)
            left = rows.gather(1, looked.clamp_min(0)) <= self.value[node]  # (b, trees)
            node = torch.where(inner & left, node + 1, self.right[node])

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """What `from_tensors` takes."""
        return {"feature": self.feature, "value": self.value, "right": self.right, "roots": self.roots}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], features: int) -> Self:
        """A forest that looks at rows of so many features.

        Raises
        ------
        DamagedSnapshot
            for tensors that are missing, or would lead a row in circles or out of the forest.
        """
        try:
            forest = cls(*(tensors[name] for name in ("feature", "value", "right", "roots")))
        except KeyError as error:
            raise DamagedSnapshot(f"the forest lacks {error}") from error
        if not all(forest._sound(features)):
            raise DamagedSnapshot("the nodes of the forest do not make trees")
        return forest

    def _sound(self, features: int) -> Iterator[bool]:
        count = len(self.feature)
        kinds = {"feature": torch.int16, "value": torch.float32, "right": torch.int32, "roots": torch.int32}
        yield all(tensor.dtype == kinds[name] and tensor.ndim == 1 for name, tensor in self.tensors().items())
        yield len(self.value) == len(self.right) == count and len(self.roots) > 0
        yield bool(((self.feature >= LEAF) & (self.feature < features)).all())
        yield bool(((self.roots >= 0) & (self.roots < count)).all())
        inner, place = self.feature != LEAF, torch.arange(count)
        yield bool((self.right < count).all())
        yield bool((self.right[inner] > place[inner]).all())  # ever onwards: whoever walks arrives at a leaf
        yield bool((self.right[~inner] == place[~inner]).all())


def _tree(tree: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Feature, value and right child of one of scikit-learn's trees."""
    feature = torch.from_numpy(tree.feature.copy())  # (nodes,)
    shares = torch.from_numpy(tree.value[:, 0].copy())  # (nodes, 2)
    inner = torch.from_numpy(tree.children_left != tree.children_right)
    place = torch.arange(len(feature))
    left = torch.from_numpy(tree.children_left.copy())
    assert bool((left[inner] == place[inner] + 1).all()), "depth-first growth puts the left child next"
    value = torch.where(
        inner, _rounded_down(torch.from_numpy(tree.threshold.copy())), (shares[:, 1] / shares.sum(1)).float()
    )
    right = torch.where(inner, torch.from_numpy(tree.children_right.copy()), place)
    return torch.where(inner, feature, LEAF).short(), value, right


def _rounded_down(values: Tensor) -> Tensor:
    """The largest float32 not above each float64: float32 rows fall on the same side of it."""
    near = values.float()
    return torch.where(near.double() > values, torch.nextafter(near, torch.tensor(-torch.inf)), near)
