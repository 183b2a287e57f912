"""Composites of zennit for networks that users bring, with units driven by their bias alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engram.explain.pretrained.flow import Flow

_LEAST = 1e-6
"""Contributions that sum to less have nothing to say about where relevance belongs."""


def composite_for(name: str, flow: Flow, box: tuple[Tensor, Tensor]) -> Any:
    """The composite of a name, as `engram.explain.rules.composite_of` has them, but for two things.

    Where nothing speaks for a unit that is active, for its bias alone does so, its relevance goes evenly to all that it
    reads: in a network of depthwise convolutions most of it would be lost otherwise. And all convolutions whose outputs
    are not rectified propagate by z+, not only those before residual sums, and so do grouped ones: signed rules lose
    nearly all relevance in them.

    Parameters
    ----------
    box
        The lowest and the highest values of the network's input, (1, 3, size, size) each.
    """
    from engram.explain.zennit_import import composites, rules

    nobias = {"zero_params": "bias"}
    plus, epsilon = _plus_or_even(), rules.Epsilon(**nobias)
    convolution, dense, entry = {
        "epsilon_plus": (plus, epsilon, None),
        "epsilon_plus_flat": (plus, epsilon, rules.Flat()),
        "epsilon_gamma_box": (rules.Gamma(gamma=0.25), epsilon, rules.ZBox(*box, **nobias)),
        "epsilon_alpha2_beta1": (rules.AlphaBeta(alpha=2, beta=1, **nobias), epsilon, None),
        "excitation_backprop": (plus, plus, None),
    }[name]
    layers = [*composites.layer_map_base(), ((nn.Conv2d,), convolution), ((nn.Linear,), dense)]
    names = [*([] if entry is None else [(flow.first, entry)]), ((*flow.unrectified, *flow.grouped), plus)]
    return composites.NameLayerMapComposite(name_map=names, layer_map=layers)


def _plus_or_even() -> Any:
    """The z+ rule, and the flat rule for units that have no positive contribution."""
    from engram.explain.zennit_import import core, rules

    nobias = {"zero_params": "bias"}

    def mapped(relevance: Tensor, outputs: Sequence[Tensor]) -> list[Tensor]:
        positive, count = outputs[0] + outputs[1], outputs[2]
        spoken = positive > _LEAST
        share = torch.where(spoken, relevance / positive.clamp_min(_LEAST), 0.0)
        return [share, share, torch.where(spoken, 0.0, relevance / count)]

    def reduced(inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
        return inputs[0] * gradients[0] + inputs[1] * gradients[1] + gradients[2]

    return core.BasicHook(
        input_modifiers=[lambda given: given.clamp(min=0), lambda given: given.clamp(max=0), torch.ones_like],
        param_modifiers=[
            rules.ClampMod(min=0.0, **nobias),
            rules.ClampMod(max=0.0, **nobias),
            core.ParamMod(lambda parameter, name: torch.ones_like(parameter), **nobias),
        ],
        output_modifiers=[lambda output: output] * 3,
        gradient_mapper=mapped,
        reducer=reduced,
    )
