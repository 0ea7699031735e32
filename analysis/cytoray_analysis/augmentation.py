"""Augmentation of whole batches as tensor operations: geometry in one resampling, then intensities."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

_Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Augmentation(BaseModel):
    """How strongly training images are varied. Zero (or a range of one value) turns a variation off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flips: bool = Field(True, description="mirror, and turn by quarters")
    rotation: _Unit = Field(0.5, description="share of crops that are turned by any angle")
    zoom: tuple[float, float] = Field((0.75, 1.35), description="factor drawn log-uniformly from this range")
    elastic: float = Field(3.0, ge=0.0, le=32.0, description="largest displacement of smooth warping, in pixels")
    gain: float = Field(0.35, ge=0.0, lt=1.0, description="contrast factor within 1 ± gain")
    offset: float = Field(0.15, ge=0.0, le=1.0, description="brightness shift within ± offset, of the scaled range")
    gamma: tuple[float, float] = Field((0.6, 1.6), description="exponent drawn log-uniformly from this range")
    colour: float = Field(0.1, ge=0.0, lt=1.0, description="factor per channel within 1 ± colour")
    noise: float = Field(0.08, ge=0.0, le=1.0, description="largest standard deviation of added Gaussian noise")
    blur: float = Field(1.2, ge=0.0, le=5.0, description="largest standard deviation of Gaussian blur, in pixels")

    def window(self, crop: int) -> int:
        """Side of the square to read so that most of a turned and zoomed crop lies inside."""
        return crop if self.still else int(math.ceil(crop * 1.5 / 16) * 16)

    @property
    def still(self) -> bool:
        """Whether the geometry is left as it is (mirroring aside)."""
        return self.rotation == 0 and self.zoom == (1.0, 1.0) and self.elastic == 0


def augment(
    images: Tensor, labels: Tensor, crop: int, augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Cut, warp and vary a batch.

    Parameters
    ----------
    images
        Scaled intensities, (B, C, S, S) float32, S at least `crop`.
    labels
        Instance labels, (B, S, S) integer, −1 where nothing is known (outside the image).
    crop
        Side of the square returned.
    generator
        Source of every random number, on the device of `images`.

    Returns
    -------
    images, labels
        (B, C, crop, crop) float32 and (B, crop, crop) int64.
    """
    grid = _sampling_grid(images, crop, augmentation, generator)
    warped = functional.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    # Labels travel shifted by one so that what grid_sample fills in (zero) means "unknown" (−1).
    shifted = (labels + 1).unsqueeze(1).to(images.dtype)
    chosen = functional.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return _vary_intensities(warped, augmentation, generator), chosen.squeeze(1).to(torch.int64) - 1


def _uniform(shape: tuple[int, ...], low: float, high: float, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device) * (high - low) + low


def _log_uniform(batch: int, bounds: tuple[float, float], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.exp(_uniform((batch,), math.log(bounds[0]), math.log(bounds[1]), like, generator))


def _sampling_grid(images: Tensor, crop: int, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Return where each pixel of the crops is read, (B, crop, crop, 2) in grid_sample's x, y in [−1, 1]."""
    batch, size = images.shape[0], images.shape[-1]
    angle = torch.zeros(batch, device=images.device)
    mirror = torch.ones(batch, device=images.device)
    if augmentation.flips:
        angle = torch.randint(4, (batch,), generator=generator, device=images.device) * (math.pi / 2)
        mirror = torch.randint(2, (batch,), generator=generator, device=images.device) * 2.0 - 1.0
    if augmentation.rotation > 0:
        turned = _uniform((batch,), 0.0, 1.0, images, generator) < augmentation.rotation
        angle = angle + turned * _uniform((batch,), 0.0, math.pi / 2, images, generator)
    scale = (crop / size) / _log_uniform(batch, augmentation.zoom, images, generator)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    nothing = torch.zeros_like(angle)
    matrix = torch.stack(
        (torch.stack((cosine * mirror, -sine, nothing), 1), torch.stack((sine * mirror, cosine, nothing), 1)),
        1,
    )
    grid = functional.affine_grid(matrix, [batch, 1, crop, crop], align_corners=False)
    if augmentation.elastic > 0:
        knots = _uniform((batch, 2, 6, 6), -1.0, 1.0, images, generator)
        warp = functional.interpolate(knots, size=(crop, crop), mode="bicubic", align_corners=True)
        strength = _uniform((batch, 1, 1, 1), 0.0, augmentation.elastic * 2 / size, images, generator)
        grid = grid + (warp * strength).permute(0, 2, 3, 1)
    return grid


def _vary_intensities(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    batch, channels = images.shape[:2]
    column = (batch, 1, 1, 1)
    if augmentation.gamma != (1.0, 1.0):
        exponent = _log_uniform(batch, augmentation.gamma, images, generator).view(column)
        images = torch.where(images > 0, images.clamp(min=1e-6) ** exponent, images)
    if augmentation.blur > 0:
        images = _blur(images, _uniform((batch,), 0.0, augmentation.blur, images, generator))
    gain = 1 + _uniform(column, -augmentation.gain, augmentation.gain, images, generator)
    colour = 1 + _uniform((batch, channels, 1, 1), -augmentation.colour, augmentation.colour, images, generator)
    offset = _uniform(column, -augmentation.offset, augmentation.offset, images, generator)
    images = images * (gain * colour) + offset
    if augmentation.noise > 0:
        # Squared, so that most crops stay nearly clean.
        strength = _uniform(column, 0.0, 1.0, images, generator) ** 2 * augmentation.noise
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + noise * strength
    return images


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with a Gaussian of its own width, separably."""
    batch, channels, height, width = images.shape
    radius = 4
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma.clamp(min=0.05).unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = images.reshape(1, batch * channels, height, width)
    flat = functional.pad(flat, (radius, radius, radius, radius), mode="reflect")
    flat = functional.conv2d(flat, kernel.view(-1, 1, 2 * radius + 1, 1), groups=batch * channels)
    flat = functional.conv2d(flat, kernel.view(-1, 1, 1, 2 * radius + 1), groups=batch * channels)
    return flat.reshape(batch, channels, height, width)
