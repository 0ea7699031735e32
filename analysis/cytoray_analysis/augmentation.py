"""Augmentation of whole batches as tensor operations: geometry in one resampling, then intensities.

Images and volumes use the same code. A crop is rotated only in its Y–X plane, where pixels are square; it is mirrored,
zoomed and warped along every axis.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn import functional

_Unit = Annotated[float, Field(ge=0.0, le=1.0)]
_KNOTS = 6  # of the warping, along each axis
_LARGEST_NUMBER = 2**24 - 1


class Augmentation(BaseModel):
    """Strength of the augmentation. Zero (or a range of one value) turns a transformation off."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flips: bool = Field(True, description="mirror, and rotate by multiples of 90°")
    rotation: _Unit = Field(0.5, description="share of crops that are rotated by any angle")
    zoom: tuple[float, float] = Field((0.75, 1.35), description="factor drawn log-uniformly from this range")
    elastic: float = Field(
        3.0, ge=0.0, le=32.0, description="largest displacement of smooth warping along the longest side, in pixels"
    )
    gain: float = Field(0.35, ge=0.0, lt=1.0, description="contrast factor within 1 ± gain")
    offset: float = Field(0.15, ge=0.0, le=1.0, description="brightness shift within ± offset, of the scaled range")
    gamma: tuple[float, float] = Field((0.6, 1.6), description="exponent drawn log-uniformly from this range")
    colour: float = Field(0.1, ge=0.0, lt=1.0, description="factor per channel within 1 ± colour")
    noise: float = Field(0.08, ge=0.0, le=1.0, description="largest standard deviation of added Gaussian noise")
    blur: float = Field(1.2, ge=0.0, le=5.0, description="largest standard deviation of Gaussian blur, in pixels")
    invert: _Unit = Field(0.0, description="share of crops whose intensities are inverted: dark on bright")
    mixing: _Unit = Field(0.0, description="largest share of the other channels in each channel: hues and stains")
    drop: _Unit = Field(0.0, description="share of crops in which one channel is empty")
    gradient: float = Field(
        0.0, ge=0.0, le=3.0, description="largest slope of the illumination: 1 is a factor of e across the crop"
    )
    jpeg: _Unit = Field(0.0, description="share of crops that are compressed as by JPEG")

    def window(self, crop: tuple[int, ...]) -> tuple[int, ...]:
        """Size to read, per spatial axis, so that it contains most of a rotated and zoomed crop of that size.

        A stack needs a margin along Z only for zoom and warping, because it is rotated in its plane.
        """
        *depth, height, width = crop
        side = max(height, width)
        if self.still:
            return (*depth, side, side) if self.flips else crop
        farther = max(1 / self.zoom[0], 1.0)
        shift = self.elastic / max(crop)
        plane = math.ceil(side * max(1.5, farther) / 16) * 16
        return (*(math.ceil(length * (farther + 2 * shift)) for length in depth), plane, plane)

    @property
    def still(self) -> bool:
        """Whether the geometry is unchanged (except mirroring)."""
        return self.rotation == 0 and self.zoom == (1.0, 1.0) and self.elastic == 0


def augment(
    images: Tensor, truth: Tensor, crop: tuple[int, ...], augmentation: Augmentation, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Crop, warp and augment a batch.

    Parameters
    ----------
    images
        Scaled intensities, (B, C, spatial…) float32, at least `crop` along every axis; such as
        :meth:`Augmentation.window` asks for.
    truth
        The truth: labels (B, spatial…) integer, −1 for unknown (outside the image); or images (B, K, spatial…) float32,
        NaN for unknown; or anything (B,) without geometry, such as classes. Beyond `images` labels and images are
        unknown there, and pixels 0; without geometry, the border of `images` is repeated, as in
        :func:`cytoray_analysis.cells.read_window` for a prediction.
    crop
        Size of the crops returned, per spatial axis.
    generator
        Source of every random number, on the device of `images`.

    Returns
    -------
    images, truth
        (B, C, crop…) float32, and labels (B, crop…) int64, or images (B, K, crop…) float32, or (B,) unchanged.
    """
    grid = _sampling_grid(images, crop, augmentation, generator)
    beyond = "zeros" if truth.ndim > 1 else "border"
    warped = functional.grid_sample(images, grid, mode="bilinear", padding_mode=beyond, align_corners=False)
    if truth.ndim == images.ndim:
        truth = _read_images(truth, grid)
    elif truth.ndim > 1:
        truth = _read_labels(truth, grid)
    return _vary_intensities(warped, augmentation, generator), truth


def _read_labels(labels: Tensor, grid: Tensor) -> Tensor:
    names = None
    if int(labels.max()) >= _LARGEST_NUMBER:  # from here on two numbers may be one as float32
        names, labels = torch.unique(labels, return_inverse=True)
    # They travel shifted by one, so that what grid_sample fills in (zero) means "unknown" (−1).
    shifted = (labels + 1).unsqueeze(1).to(grid.dtype)
    chosen = functional.grid_sample(shifted, grid, mode="nearest", padding_mode="zeros", align_corners=False)
    found = chosen.squeeze(1).to(torch.int64) - 1
    return found if names is None else torch.where(found < 0, -1, names[found.clamp(min=0)])


def _read_images(images: Tensor, grid: Tensor) -> Tensor:
    """Interpolate; a result with any unknown pixel is unknown."""
    known = ~torch.isnan(images)
    both = torch.cat((images.nan_to_num(0.0), known.to(images.dtype)), dim=1)
    read = functional.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    values, share = read.chunk(2, dim=1)
    return values.masked_fill(share < 0.999, math.nan)


def _uniform(shape: tuple[int, ...], low: float, high: float, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=like.device) * (high - low) + low


def _log_uniform(batch: int, bounds: tuple[float, float], like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.exp(_uniform((batch,), math.log(bounds[0]), math.log(bounds[1]), like, generator))


def _signs(batch: int, like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(2, (batch,), generator=generator, device=like.device) * 2.0 - 1.0


def _sampling_grid(
    images: Tensor, crop: tuple[int, ...], augmentation: Augmentation, generator: torch.Generator
) -> Tensor:
    """Return where each pixel of the crops is read, (B, crop…, axes), in grid_sample's X, Y (, Z) in [−1, 1]."""
    batch, size, axes = images.shape[0], images.shape[2:], len(crop)
    angle = torch.zeros(batch, device=images.device)
    mirror = torch.ones((axes, batch), device=images.device)
    if augmentation.flips:
        # Together with turns by quarters, one mirror in the plane gives all eight positions.
        angle = torch.randint(4, (batch,), generator=generator, device=images.device) * (math.pi / 2)
        for axis in (0, *range(2, axes)):
            mirror[axis] = _signs(batch, images, generator)
    if augmentation.rotation > 0:
        turned = _uniform((batch,), 0.0, 1.0, images, generator) < augmentation.rotation
        angle = angle + turned * _uniform((batch,), 0.0, math.pi / 2, images, generator)
    matrix = torch.zeros((batch, axes, axes + 1), device=images.device)
    matrix[:, 0, 0], matrix[:, 0, 1] = torch.cos(angle), -torch.sin(angle)
    matrix[:, 1, 0], matrix[:, 1, 1] = torch.sin(angle), torch.cos(angle)
    for axis in range(2, axes):
        matrix[:, axis, axis] = 1.0
    matrix[:, :, :axes] *= mirror.T.unsqueeze(1) / _log_uniform(batch, augmentation.zoom, images, generator).view(
        -1, 1, 1
    )
    # From pixels to grid_sample's units, in which both the crop and what it is read from are 2 wide.
    to, of = torch.tensor(crop[::-1], device=images.device), torch.tensor(size[::-1], device=images.device)
    matrix[:, :, :axes] *= to.view(1, 1, -1) / of.view(1, -1, 1)
    grid = functional.affine_grid(matrix, [batch, 1, *crop], align_corners=False)
    if augmentation.elastic > 0:
        strength = _uniform((batch,) + (1,) * (axes + 1), 0.0, augmentation.elastic, images, generator)
        # Strained alike along every axis: a flat crop is not shifted by more than a share of its depth.
        share = to / to.max() * 2 / of
        grid = grid + _smooth_field(batch, crop, images, generator) * (strength * share)
    return grid


def _smooth_field(batch: int, crop: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Return a smooth random displacement for each pixel, (B, crop…, axes), each within about ± 1."""
    axes, plane = len(crop), crop[-2:]
    knots = _uniform((batch, axes * _KNOTS ** (axes - 2), _KNOTS, _KNOTS), -1.0, 1.0, like, generator)
    field = functional.interpolate(knots, size=plane, mode="bicubic", align_corners=True)
    if axes == 2:
        return field.permute(0, 2, 3, 1)
    field = functional.interpolate(
        field.view(batch, axes, _KNOTS, *plane), size=crop, mode="trilinear", align_corners=True
    )
    return field.permute(0, 2, 3, 4, 1)


def _vary_intensities(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    batch, channels = images.shape[:2]
    column = (batch,) + (1,) * (images.ndim - 1)
    if augmentation.invert > 0:
        inverted = _uniform(column, 0.0, 1.0, images, generator) < augmentation.invert
        images = torch.where(inverted, 1 - images, images)
    if augmentation.mixing > 0 and channels > 1:
        images = _mix_channels(images, augmentation.mixing, generator)
    if augmentation.gradient > 0:
        images = images * _illumination(images, augmentation.gradient, generator)
    if augmentation.gamma != (1.0, 1.0):
        exponent = _log_uniform(batch, augmentation.gamma, images, generator).view(column)
        images = torch.where(images > 0, images.clamp(min=1e-6) ** exponent, images)
    if augmentation.blur > 0:
        images = _blur(images, _uniform((batch,), 0.0, augmentation.blur, images, generator))
    gain = 1 + _uniform(column, -augmentation.gain, augmentation.gain, images, generator)
    per_channel = (batch, channels, *column[2:])
    colour = 1 + _uniform(per_channel, -augmentation.colour, augmentation.colour, images, generator)
    offset = _uniform(column, -augmentation.offset, augmentation.offset, images, generator)
    images = images * (gain * colour) + offset
    if augmentation.noise > 0:
        # Squared, so that most crops stay nearly clean.
        strength = _uniform(column, 0.0, 1.0, images, generator) ** 2 * augmentation.noise
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        images = images + noise * strength
    if augmentation.jpeg > 0:
        images = _compress(images, augmentation.jpeg, generator)
    if augmentation.drop > 0 and channels > 1:
        images = _drop_channel(images, augmentation.drop, generator)
    return images


def _mix_channels(images: Tensor, most: float, generator: torch.Generator) -> Tensor:
    """Replace a share of each channel by a random mean of all of them, the same for all pixels of a crop."""
    batch, channels = images.shape[:2]
    others = _uniform((batch, channels, channels), 0.0, 1.0, images, generator)
    share = _uniform((batch, 1, 1), 0.0, most, images, generator)
    mixing = (1 - share) * torch.eye(channels, device=images.device) + share * others / others.sum(2, keepdim=True)
    return torch.bmm(mixing, images.flatten(2)).view(images.shape)


def _illumination(images: Tensor, steepest: float, generator: torch.Generator) -> Tensor:
    """Return a factor per pixel, (B, 1, …, Y, X), that grows exponentially in one direction of the plane."""
    batch, (height, width) = images.shape[0], images.shape[-2:]
    slope = _uniform((batch, 1, 1), 0.0, steepest, images, generator)
    angle = _uniform((batch, 1, 1), 0.0, 2 * math.pi, images, generator)
    down = torch.linspace(-0.5, 0.5, height, device=images.device).view(1, -1, 1)
    across = torch.linspace(-0.5, 0.5, width, device=images.device).view(1, 1, -1)
    factor = torch.exp(slope * (torch.sin(angle) * down + torch.cos(angle) * across))
    return factor.view(batch, *(1,) * (images.ndim - 3), height, width)


_BLOCK = 8  # pixels along an axis that JPEG transforms together


def _compress(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Round the cosine transform of blocks of 8 × 8 pixels, coarser for fine details, as JPEG does (ITU-T T.81)."""
    batch, (height, width) = images.shape[0], images.shape[-2:]
    coarseness = _uniform((batch, 1, 1, 1, 1, 1), 0.005, 0.04, images, generator)
    chosen = (_uniform((batch,), 0.0, 1.0, images, generator) < share).nonzero().flatten()
    frequency = torch.arange(_BLOCK, device=images.device, dtype=images.dtype)
    cosine = torch.cos(math.pi / _BLOCK * (frequency + 0.5) * frequency.view(-1, 1)) * math.sqrt(2 / _BLOCK)
    cosine[0] *= math.sqrt(0.5)
    planes = images[chosen].flatten(1, -3)
    padded = functional.pad(planes, (0, -width % _BLOCK, 0, -height % _BLOCK), mode="replicate")
    blocks = padded.unfold(2, _BLOCK, _BLOCK).unfold(3, _BLOCK, _BLOCK)
    step = coarseness[chosen] * (1 + frequency + frequency.view(-1, 1))
    rounded = torch.round(cosine @ blocks @ cosine.T / step) * step
    restored = (cosine.T @ rounded @ cosine).transpose(3, 4).reshape(padded.shape)[..., :height, :width]
    compressed = images.clone()
    compressed[chosen] = restored.reshape(len(chosen), *images.shape[1:])
    return compressed


def _drop_channel(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    batch, channels = images.shape[:2]
    which = torch.randint(channels, (batch, 1), generator=generator, device=images.device)
    dropped = _uniform((batch, 1), 0.0, 1.0, images, generator) < share
    kept = ~(dropped & (torch.arange(channels, device=images.device).view(1, -1) == which))
    return images * kept.view(batch, channels, *(1,) * (images.ndim - 2))


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur the planes of each image with a Gaussian of its own width, separably."""
    height, width = images.shape[-2:]
    radius = 4
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma.clamp(min=0.05).unsqueeze(1)) ** 2)
    planes = math.prod(images.shape[1:-2])
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(planes, 0)
    flat = images.reshape(1, -1, height, width)
    flat = functional.pad(flat, (radius, radius, radius, radius), mode="reflect")
    flat = functional.conv2d(flat, kernel.view(-1, 1, 2 * radius + 1, 1), groups=len(kernel))
    flat = functional.conv2d(flat, kernel.view(-1, 1, 1, 2 * radius + 1), groups=len(kernel))
    return flat.reshape(images.shape)
