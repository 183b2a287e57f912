"""Explainer of heads that read several commons, or pretrained ones, and of engrams on their maps."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from engram.errors import UnknownComposite
from engram.explain.commons import CommonsRelevance
from engram.explain.explainer import Explainer, Heatmap
from engram.explain.pretrained.commons_reading import CommonsReading, MapsReading, Together
from engram.explain.pretrained.explainer import Attribution, PretrainedExplainer, explained_by_gradients
from engram.explain.pretrained.offer import DEFAULT_OF_GRADIENTS, PATHS, Offer
from engram.explain.pretrained.reading import Explained, OwnLogit
from engram.explain.rules import COMPOSITES, CONSERVING, DEFAULT_COMPOSITE, GRADIENTS
from engram.nn.commons import Commons
from engram.nn.commons.joined_commons import JoinedCommons
from engram.nn.commons.pretrained_commons import PretrainedCommons
from engram.nn.network import Engram, pixels


def explainer_of(stack: Sequence[Engram], commons: Commons) -> Explainer | JoinedExplainer:
    """What explains engrams that read these commons."""
    joined = isinstance(commons, JoinedCommons | PretrainedCommons)
    return JoinedExplainer(stack, commons) if joined else Explainer(stack, commons)


class JoinedExplainer:
    """Maker of heatmaps for engrams whose heads read pretrained commons, safe in many threads.

    A logit is the sum of what its engram computes and of what its head reads of each of the commons; so is its heatmap.

    Parameters
    ----------
    commons
        Several, or one that is pretrained; what is neither is explained by `Explainer`.
    """

    def __init__(self, stack: Sequence[Engram], commons: Commons) -> None:
        self._stack = tuple(stack)
        self._engrams = Explainer(stack)
        self._parts = _parts(commons)
        self._networks = {
            number: PretrainedExplainer.of(part.network)
            for number, part in enumerate(self._parts)
            if isinstance(part, PretrainedCommons)
        }
        self._others = {
            number: CommonsRelevance(part) for number, part in enumerate(self._parts) if number not in self._networks
        }
        shows = (number for number, part in enumerate(self._parts) if part.maps is not None)
        self._shown = next(shows, None)

    @property
    def offer(self) -> Offer:
        """What fits all the networks; the first that has reasons against relevance says them."""
        if not self._networks:
            return Offer(DEFAULT_COMPOSITE, COMPOSITES, CONSERVING, "no network is pretrained")
        offers = [network.offer for network in self._networks.values()]
        least = min(offers, key=lambda offer: len(offer.composites))
        if all(offer.default == least.default for offer in offers):
            return least
        return Offer(DEFAULT_OF_GRADIENTS, least.composites, least.conserving, least.why)

    def explain(self, image: Tensor, owner: int, target: int, composite: str | None = None) -> Heatmap:
        """As `Explainer.explain`; by default with what suits the networks."""
        engram = self._stack[owner]
        weight, bias = torch.zeros(sum(part.features for part in self._parts)), torch.zeros(())
        if engram.common is not None:
            weight, bias = engram.common.weight[target].detach(), engram.common.bias[target].detach()
        found = self._explained(image, weight, bias, (owner, target), composite)
        label = engram.classes[target]
        return Heatmap(image.cpu(), found.relevance, engram.task, label, found.logit, found.composite, found.goal)

    def explain_head(self, image: Tensor, weight: Tensor, bias: Tensor, composite: str | None = None) -> Attribution:
        """The heatmap of `weight @ features + bias`, with no engram."""
        return self._explained(image, weight, bias, None, composite)

    def explain_own(self, image: Tensor, target: int, composite: str | None = None) -> Attribution:
        """The heatmap of a logit of the first network's own classifier."""
        first = next(iter(self._networks.values()))
        return first.explain(image, OwnLogit(target), self._offered(composite))

    def _explained(
        self, image: Tensor, weight: Tensor, bias: Tensor, asked: tuple[int, int] | None, composite: str | None
    ) -> Attribution:
        name = self._offered(composite)
        given = pixels(image[None].to(weight.device))  # (1, C, H, W)
        shares = list(torch.split(weight, [part.features for part in self._parts]))
        biases = [bias, *[torch.zeros_like(bias)] * (len(shares) - 1)]
        read = list(zip(shares, biases, strict=True))
        if name in (*GRADIENTS, *PATHS):
            start = next((network.even(given) for network in self._networks.values()), given)
            slope = partial(self._slope, read=read, asked=asked, composite=name)
            return explained_by_gradients(slope, given, start, name)
        return self._propagated(image, given, read, asked, name)

    def _offered(self, composite: str | None) -> str:
        """The composite that is asked for, or the one that suits; raises UnknownComposite."""
        offer = self.offer
        name = composite or offer.default
        if name not in offer.composites:
            known = ", ".join(offer.composites)
            raise UnknownComposite(f"no composite of this model is called {name!r}; there are {known}")
        return name

    def _propagated(
        self,
        image: Tensor,
        given: Tensor,
        read: Sequence[tuple[Tensor, Tensor]],
        asked: tuple[int, int] | None,
        composite: str,
    ) -> Attribution:
        """The sum of the relevance (C, H, W) of all parts."""
        number, relevance = 0.0, torch.zeros(image.shape)
        if asked is not None and self._shown is None:
            number, carried = self._engrams.carried(given, *asked, composite)
            relevance = carried[0].cpu()
        for part, network in self._networks.items():
            found = network.explain(image, self._reading(part, read[part], asked, composite), composite)
            number, relevance = number + found.logit, relevance + found.relevance
        for part, other in self._others.items():
            carried, logit = other.conserved(given, *read[part], flat=composite == "epsilon_plus_flat")
            number, relevance = number + logit, relevance + carried.cpu()
        return Attribution(relevance, number, number, composite)

    def _slope(
        self,
        given: Tensor,
        read: Sequence[tuple[Tensor, Tensor]],
        asked: tuple[int, int] | None,
        composite: str,
    ) -> tuple[float, Tensor]:
        """The number for pixels (1, C, H, W) in [0, 1], and its gradient by them."""
        number, gradient = 0.0, torch.zeros_like(given)
        if asked is not None and self._shown is None:
            number, gradient = self._engrams.carried(given, *asked, _plain(composite))
        for part, network in self._networks.items():
            reading = self._reading(part, read[part], asked, _plain(composite))
            logit, slope = network.slope(given, reading, composite)
            number, gradient = number + logit, gradient + slope
        for part, other in self._others.items():
            weight, bias = read[part]
            number = number + other.logit(given, weight, bias)
            gradient = gradient + other.gradient(given, weight)
        return number, gradient

    def _reading(
        self, number: int, read: tuple[Tensor, Tensor], asked: tuple[int, int] | None, composite: str
    ) -> Explained:
        """All that is read of one network: by the head, and by engrams where they read its maps."""
        part = self._parts[number]
        assert isinstance(part, PretrainedCommons), "only networks are read by readings"
        head = CommonsReading(part, *read)
        if asked is None or number != self._shown:
            return head
        owner, target = asked
        return Together((head, MapsReading(part, lambda maps: self._engrams.carried(maps, owner, target, composite))))


def _parts(commons: Commons) -> list[Commons]:
    return commons.each() if isinstance(commons, JoinedCommons) else [commons]


def _plain(composite: str) -> str:
    """The composite that engrams carry gradients back by: averages take them as they are."""
    return "gradient_times_input" if composite in PATHS else composite
