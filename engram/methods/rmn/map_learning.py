"""Joint training of one relevance map and the weights that are still free."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.optim import Optimizer

from engram.config.rmn import RmnSettings
from engram.context import LearnContext, OptimiserFactory
from engram.data.examples import Examples
from engram.methods.rmn.maps import HEAD, RelevanceMap, SharedNetwork, SharedWeight, mixing, packed, shapes
from engram.nn.blocks import ConvBlock, DenseBlock
from engram.nn.network import Engram
from engram.training.distinctive_patches import start_from_patches
from engram.training.optimisers import create_optimiser
from engram.training.trainer import norms

STARTING_RELEVANCE = 0.75
"""Relevance from which on a filter that starts from a patch begins: all of its weights count."""

NOISE_SHARE = 4
"""One noise image for so many images of a step."""

_RELATIVE, _DONE = "relative", "done"
"""What an optimiser's groups hold besides its own: the rate of relevance, and in the first the steps that are done."""


class MapParametrisation(nn.Module):
    """The parametrisation of one weight tensor: what is fixed stays what it is, and relevance decides what counts.

    In training a weight counts as W * sigma(beta (M - 1/2)), otherwise as W where M is at least 1/2 and 0 elsewhere:
    what is judged, and served, is the rounded map. Once `settle` was called, the map is bits in training too.

    Parameters
    ----------
    shared_weight
        The part of the shared network that is learned on: fixed weights are constants here, out of any optimiser's
        reach.
    relevance
        Where M starts.
    """

    def __init__(self, shared_weight: SharedWeight, relevance: Tensor) -> None:
        super().__init__()
        self.beta = 1.0
        self.relevance = nn.Parameter(relevance)
        self.register_buffer("constants", shared_weight.weight.clone())
        self.register_buffer("fixed", shared_weight.fixed.clone())
        self.register_buffer("taken", shared_weight.used.clone())
        self.register_buffer("alive", torch.ones_like(shared_weight.used))
        self.settled = False

    def whole(self, weight: Tensor) -> Tensor:
        """All weights, whether they count or not."""
        return torch.where(cast(Tensor, self.fixed), cast(Tensor, self.constants), weight)

    @property
    def used(self) -> Tensor:
        """The rounded map, as bools."""
        return (self.relevance.detach() >= 0.5) & cast(Tensor, self.alive)

    def soft(self) -> Tensor:
        """Relevance in training, 0 to 1."""
        return torch.sigmoid(self.beta * (self.relevance - 0.5)) * cast(Tensor, self.alive)

    def forward(self, weight: Tensor) -> Tensor:
        whole = self.whole(weight)
        if self.training and not self.settled:
            return whole * self.soft()
        return torch.where(self.used, whole, 0.0)

    @torch.no_grad()
    def tighten(self, prune_below: float) -> None:
        """Keep relevance in [0, 1], and give up what has fallen below a threshold."""
        self.relevance.clamp_(0.0, 1.0)
        alive = cast(Tensor, self.alive)
        alive &= self.relevance >= prune_below

    def settle(self) -> None:
        """From now on the map is what it rounds to."""
        self.settled = True
        self.relevance.requires_grad_(False)
        self.relevance.grad = None


class MapCandidate(Engram):
    """A task's pass while it is learned: an engram over the whole shared network, seen through its relevance.

    It has no biases. Weights that no earlier task uses are drawn anew, so that nothing of them has to be kept.
    """

    def __init__(
        self, shared: SharedNetwork, task: str, classes: tuple[str, ...], settings: RmnSettings, seed: int
    ) -> None:
        layout = shared.layout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(layout, task, classes, dict.fromkeys(layout.layers, 0), shared.units)
        generator = torch.Generator().manual_seed(seed)
        self.relevances: dict[str, MapParametrisation] = {}
        for name, shared_weight in self._shared_weights(shared).items():
            module = self._module(name)
            start = (
                torch.randn(shared_weight.weight.shape, generator=generator) * settings.map_spread + settings.map_mean
            )
            relevance = MapParametrisation(shared_weight, start.clamp_(0.0, 1.0))
            with torch.no_grad():
                module.weight.copy_(torch.where(shared_weight.used, shared_weight.weight, module.weight))
            parametrize.register_parametrization(module, "weight", relevance)
            self.relevances[name] = relevance
            if module.bias is not None:
                nn.init.zeros_(module.bias)
                module.bias.requires_grad_(False)

    def _shared_weights(self, shared: SharedNetwork) -> dict[str, SharedWeight]:
        """The shared weights that this task sees: its own rows of the head, new ones among them."""
        found = {node.name: shared.shared_weights[node.name] for node in mixing(shared.layout)}
        head = SharedWeight.blank(shapes(shared.layout, shared.units, len(self.classes))[HEAD])
        for row, label in enumerate(self.classes):
            if label in shared.labels:
                known = shared.shared_weights[HEAD]
                place = shared.labels.index(label)
                head.weight[row], head.used[row], head.first[row] = (
                    part[place] for part in (known.weight, known.used, known.first)
                )
        return {**found, HEAD: head}

    def _module(self, name: str) -> nn.Linear | nn.Conv2d:
        if name == HEAD:
            return self.head
        block = self.block(self.layout.node(name))
        assert isinstance(block, DenseBlock | ConvBlock), "only mixing nodes have weights"
        return block.linear if isinstance(block, DenseBlock) else block.conv

    def free_weight(self, name: str) -> nn.Parameter:
        """The trained weights of a node, those that are fixed among them being of no effect."""
        parametrised = cast(Any, self._module(name)).parametrizations["weight"]
        return cast(nn.Parameter, parametrised.original)

    def claimed(self, name: str) -> Tensor:
        """Bools: the weights that this task would be first to fix, in a map that fixes all it uses."""
        relevance = self.relevances[name]
        return relevance.used & ~cast(Tensor, relevance.fixed)

    @torch.no_grad()
    def start_from_patches(self, train: Examples, generator: torch.Generator) -> None:
        """Start some first filters that no earlier task uses from the patches that set small classes apart."""
        name = self.layout.nodes[0].name
        if name not in self.relevances:
            return
        relevance = self.relevances[name]
        free = ~cast(Tensor, relevance.taken).flatten(1).any(1)  # (units,)
        rows = start_from_patches(self, train, generator, free, self.free_weight(name))
        relevance.relevance[rows] = relevance.relevance[rows].clamp_min(STARTING_RELEVANCE)

    def settle(self) -> None:
        """Make the map what it rounds to."""
        for relevance in self.relevances.values():
            relevance.settle()

    @torch.no_grad()
    def keep(self, share: float, floor: float) -> None:
        """Give up all but about this share of the claimed weights, the smallest going first.

        Magnitudes compete over the whole network, each layer's divided by its mean; every layer keeps its own largest
        `floor` share. What earlier tasks have fixed costs nothing, and stays.
        """
        sizes = {
            name: self.free_weight(name)[self.claimed(name)].abs()  # (claimed,)
            for name in self.relevances
        }
        sizes = {name: size / size.mean().clamp_min(1e-30) for name, size in sizes.items() if len(size)}
        if not sizes:
            return
        order = torch.cat(list(sizes.values())).sort(descending=True).values
        threshold = order[max(1, round(share * len(order))) - 1]
        for name, size in sizes.items():
            own = size.sort(descending=True).values[max(1, math.ceil(floor * len(size))) - 1]
            claimed = self.claimed(name)
            alive = cast(Tensor, self.relevances[name].alive)
            alive[claimed] = size >= torch.minimum(threshold, own)

    def alive(self) -> dict[str, Tensor]:
        """A copy of what has not been given up, node by node."""
        return {name: cast(Tensor, one.alive).clone() for name, one in self.relevances.items()}

    def revive(self, alive: Mapping[str, Tensor]) -> None:
        """Go back to what `alive` said once."""
        for name, one in self.relevances.items():
            cast(Tensor, one.alive).copy_(alive[name])

    @torch.no_grad()
    def finished(self, settings: RmnSettings, peak: Tensor) -> tuple[RelevanceMap, dict[str, Tensor]]:
        """The map as it is kept, and every node's whole weights, for those that stay loose."""
        used, fixed, values, whole = {}, {}, {}, {}
        for name, one in self.relevances.items():
            stay = one.used
            if settings.fixed == "settled":
                stay = stay & ((one.relevance.detach() >= settings.settled_at) | cast(Tensor, one.fixed))
            weights = one.whole(self.free_weight(name)).cpu()
            newly = (stay & ~cast(Tensor, one.fixed)).cpu()
            used[name], fixed[name], values[name] = packed(one.used.cpu()), packed(stay.cpu()), weights[newly]
            whole[name] = weights
        state = {name: part.cpu().clone() for name, part in self.state_dict().items() if ".norm." in name}
        return RelevanceMap(self.task, self.classes, dict(self.units), used, fixed, values, state, peak), whole


@dataclass
class MapRegulariser:
    """Penalties, clipping and sharpening of a relevance map, applied at every step of an optimiser.

    Before a step the gradients of the penalties are added; after it relevance is clipped, and the rounding sharpened.
    """

    candidate: MapCandidate
    settings: RmnSettings
    context: LearnContext
    batch_size: int
    steps: int
    generator: torch.Generator
    shape: tuple[int, int, int]
    _handles: list[torch.utils.hooks.RemovableHandle] = field(default_factory=list)

    @contextmanager
    def factory(self) -> Iterator[OptimiserFactory]:
        """A factory of optimisers that all of this acts on, for as long as the context lasts."""
        try:
            yield self.optimiser
        finally:
            for handle in self._handles:
                handle.remove()

    def optimiser(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """An optimiser of the candidate's parameters, in which relevance has a rate of its own and does not decay."""
        maps = [one.relevance for one in self.candidate.relevances.values()]
        known = {id(one) for one in maps}
        rest = [each for each in parameters if id(each) not in known and each.requires_grad]
        made = create_optimiser(self.context, rest)
        moving = [one for one in maps if one.requires_grad]
        if moving:
            relative = self.settings.map_rate / self.context.options.learning_rate
            made.add_param_group({"params": moving, "weight_decay": 0.0, _RELATIVE: relative})
        made.param_groups[0][_DONE] = 0
        self._handles.append(made.register_step_pre_hook(self._before))
        self._handles.append(made.register_step_post_hook(self._after))
        self._handles.append(made.register_load_state_dict_post_hook(self._sharpen))
        self._sharpen(made)
        return made

    def _sharpen(self, optimiser: Optimizer) -> None:
        low, high = self.settings.sharpness
        within = min(1.0, optimiser.param_groups[0][_DONE] / max(1, self.steps))
        for one in self.candidate.relevances.values():
            one.beta = low * (high / low) ** within

    def _before(self, optimiser: Optimizer, *_: object) -> None:
        for group in optimiser.param_groups:
            group["lr"] *= group.get(_RELATIVE, 1.0)
        penalties = [*self._noise(), *self._sparsity()]
        if penalties:
            sum(penalties[1:], penalties[0]).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def _after(self, optimiser: Optimizer, *_: object) -> None:
        optimiser.param_groups[0][_DONE] += 1
        for one in self.candidate.relevances.values():
            if not one.settled:
                one.tighten(self.settings.prune_below)
        self._sharpen(optimiser)

    def _noise(self) -> list[Tensor]:
        if not self.settings.noise:
            return []
        count = max(1, self.batch_size // NOISE_SHARE)
        images = torch.randn(count, *self.shape, generator=self.generator).to(self.candidate.head.weight.device)
        for norm in norms(self.candidate):
            norm.eval()  # noise is no part of what normalisation is to know
        logits = self.candidate.logits(self.candidate(images, {}))  # (count, classes)
        for norm in norms(self.candidate):
            norm.train()
        return [self.settings.noise * logits.square().mean()]

    def _sparsity(self) -> list[Tensor]:
        found = []
        moving = [one for one in self.candidate.relevances.values() if not one.settled]
        if not moving:
            return []
        weights = sum(one.relevance.numel() for one in moving)
        if self.settings.sparsity:
            whole = torch.stack([one.soft().sum() for one in moving]).sum()
            found.append(self.settings.sparsity * whole / weights)
        if self.settings.overlap:
            shared = torch.stack([(one.soft() * cast(Tensor, one.taken)).sum() for one in moving]).sum()
            found.append(self.settings.overlap * shared / weights)
        return found
