"""Fold batch norms into the convolutions before them, for inference."""

from __future__ import annotations

import copy

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm2d, nn.BatchNorm3d)


def fuse_batch_norm(network: nn.Module) -> nn.Module:
    """Return a copy in which every batch norm that follows a convolution in an ``nn.Sequential`` is folded into it.

    The answers are those of the network in evaluation mode up to rounding, and come
    sooner (docs/benchmarks.md).
    """
    fused = copy.deepcopy(network).eval()
    for module in fused.modules():
        if not isinstance(module, nn.Sequential):
            continue
        for index in range(len(module) - 1):
            convolution, norm = module[index], module[index + 1]
            if isinstance(convolution, _CONVOLUTIONS) and isinstance(norm, _NORMS):
                module[index] = fuse_conv_bn_eval(convolution, norm)
                module[index + 1] = nn.Identity()
    return fused
