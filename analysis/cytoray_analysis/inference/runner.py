"""A network on a device: scaled pixels in, outputs out."""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray

from cytoray_analysis.bundle import Model
from cytoray_analysis.devices import Precision, choose_device, choose_precision, keep_freed_memory
from cytoray_analysis.networks import dense, fuse_batch_norm
from cytoray_analysis.tiles import per_axis

_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class NetworkRunner:
    """Runs the network of a bundle.

    Parameters
    ----------
    bundle
        The model.
    device
        Such as ``"cpu"`` or ``"cuda:0"``; an accelerator when there is one by default.
    precision
        ``"fp32"`` or ``"bf16"``; bf16 by default where the device computes it natively.

    Attributes
    ----------
    stride, halo
        What tiling needs to know, in pixels along each spatial axis.
    """

    def __init__(self, bundle: Model, device: str | None, precision: Precision | None) -> None:
        self.device = choose_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.precision: Precision = precision or choose_precision(self.device)
        self.type = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.dimensions = len(bundle.spec.input.spatial_axes)
        network = fuse_batch_norm(bundle.network()).to(device=self.device, dtype=self.type)
        shape = dense(network)
        self.stride = per_axis(shape.stride, self.dimensions)
        self.halo = per_axis(shape.halo, self.dimensions)
        self.bytes_per_pixel = shape.bytes_per_pixel(self.type.itemsize)
        layout = _FORMATS.get(self.dimensions + 2)
        # One batch at a time on an accelerator, whose memory the activations of several would share; others are read
        # and decoded meanwhile.
        self._turn: AbstractContextManager[object] = nullcontext() if self.device.type == "cpu" else threading.Lock()
        self.network = network if layout is None else network.to(memory_format=layout)  # type: ignore[call-overload]

    def forward(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map inputs (B, C, …) to outputs (B, K, …) or (B, K), float32."""
        with self._turn, torch.inference_mode():
            tensor = torch.from_numpy(pixels).to(device=self.device, dtype=self.type)
            layout = _FORMATS.get(tensor.ndim)
            if layout is not None:
                tensor = tensor.contiguous(memory_format=layout)
            answer: torch.Tensor = self.network(tensor)
            result: NDArray[np.float32] = answer.float().contiguous().cpu().numpy()
        return result

    def forward_padded(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map pixels (B, C, spatial…) of any size to outputs (B, K, spatial…), padding to the stride by reflection."""
        shape = pixels.shape[2:]
        missing = [-length % stride for length, stride in zip(shape, self.stride, strict=True)]
        if any(missing):
            margins = [(0, 0), (0, 0), *((0, extra) for extra in missing)]
            narrow = any(extra >= length for extra, length in zip(missing, shape, strict=True))
            pixels = np.pad(pixels, margins, mode="edge" if narrow else "reflect")
        answer = self.forward(pixels)
        kept = answer[(slice(None), slice(None), *(slice(0, length) for length in shape))]
        return np.ascontiguousarray(kept)
