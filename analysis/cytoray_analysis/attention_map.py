"""Maps of the pixels that determine the predicted class of a cell."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from cytoray_analysis.errors import RequestError
from cytoray_analysis.networks.classifier import Classifier


def attention_map(network: nn.Module, window: NDArray[np.float32], class_index: int) -> NDArray[np.float32]:
    """Map how much each position of a window contributes to a class.

    With a trunk: Grad-CAM (Selvaraju et al., ICCV 2017, arXiv:1610.02391), the sum of the trunk's feature maps, each
    weighted by the mean gradient of the class's logit, negative values set to zero, resized to the window. Without a
    trunk: the gradient of the logit for each pixel, in the channel with the largest gradient (Simonyan et al., 2014,
    arXiv:1312.6034).

    Parameters
    ----------
    network
        A :class:`~cytoray_analysis.networks.classifier.Classifier`, with batch norms unfolded or folded.
    window
        (C, spatial…) float32, scaled as for the network.
    class_index
        The class, from 0.

    Returns
    -------
    ndarray
        (spatial…) float32 from 0 to 1, where 1 is the largest contribution; 0 everywhere if nothing contributes.

    Raises
    ------
    RequestError
        The network answers for pixels or links, or has no such class.
    """
    if not isinstance(network, Classifier):
        raise RequestError(
            f"expected a network that classifies cells, got {type(network).__name__}",
            field="network",
            hint="heat maps require a classification model",
        )
    network.eval()
    parameter = next(network.parameters())
    pixels = torch.from_numpy(np.ascontiguousarray(window)).to(device=parameter.device, dtype=parameter.dtype)[None]
    with torch.no_grad():
        features = network.features(pixels).clone()
    features.requires_grad_(True)
    with torch.enable_grad():
        logits = network.classify(features)
        if not 0 <= class_index < logits.shape[1]:
            raise RequestError(
                f"expected a class from 0 to {logits.shape[1] - 1}, got {class_index}", field="class_index"
            )
        (gradient,) = torch.autograd.grad(logits[0, class_index], features)
    if network.trunk:
        weight = gradient.mean(dim=tuple(range(2, features.ndim)), keepdim=True)
        place = (features.detach() * weight).sum(dim=1, keepdim=True).clamp(min=0)
    else:
        place = gradient.abs().amax(dim=1, keepdim=True)
    return _scaled(_enlarged(place.float(), window.shape[1:]))


def _enlarged(place: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Interpolate (1, 1, spatial…) to a spatial shape, (spatial…)."""
    if tuple(place.shape[2:]) == shape:
        return place[0, 0]
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    return functional.interpolate(place, size=shape, mode=mode, align_corners=False)[0, 0]


def _scaled(place: Tensor) -> NDArray[np.float32]:
    highest = float(place.max())
    scaled: NDArray[np.float32] = (place / highest if highest > 0 else place).cpu().numpy()
    return scaled
