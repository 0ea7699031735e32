"""The options of replicas; part of the configuration, imported without PyTorch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.devices import MEMORY_BUDGET, Precision


class ReplicaOptions(BaseModel):
    """How to run a model.

    Attributes
    ----------
    device
        A torch device; None for an accelerator, if there is one.
    precision
        Precision of the network; None for the choice of the predictor.
    threads
        Number of cores for the network; None for all.
    memory_budget
        Bytes for one prediction; larger images are cut into tiles.
    batch_pixels
        Maximum number of pixels in a batch of images of one shape; by default a quarter of a megapixel on a CPU,
        because of the size of its caches, and sixteen megapixels on an accelerator.
    largest_image
        Maximum number of pixels of an image.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str | None = None
    precision: Precision | None = None
    threads: int | None = Field(default=None, ge=1)
    memory_budget: int = Field(default=MEMORY_BUDGET, ge=2**24)
    batch_pixels: int | None = Field(default=None, ge=1)
    largest_image: int = Field(default=2**28, ge=1)
