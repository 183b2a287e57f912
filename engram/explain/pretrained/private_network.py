"""Private copies of networks to be explained, with batch normalisation folded."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from engram.explain.pretrained.flow import Flow


@torch.no_grad()
def private_network(module: nn.Module, flow: Flow) -> nn.Module:
    """A copy in eval mode, without gradients of its own, which changes nothing in place.

    Batch normalisations that read a convolution are folded into it; what they do besides, in some libraries, stays.
    """
    private = copy.deepcopy(module).eval().requires_grad_(False)
    for norm, conv in flow.normalised.items():
        layer, normalisation = private.get_submodule(conv), private.get_submodule(norm)
        assert isinstance(layer, nn.Conv2d), "only convolutions are said to be normalised"
        assert isinstance(normalisation, nn.BatchNorm2d), "only batch normalisations are said to normalise"
        private.set_submodule(conv, fuse_conv_bn_eval(layer, normalisation))
        # Those of timm have their rectifier inside.
        private.set_submodule(norm, nn.Sequential(*normalisation.children()))
    for one in private.modules():
        if getattr(one, "inplace", False):
            one.inplace = False  # type: ignore[assignment]  # what it is says the module's own class
    return private.requires_grad_(False)
