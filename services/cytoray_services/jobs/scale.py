"""The resources of a training run: the section ``scale`` of a recipe."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cytoray_analysis.errors import RecipeError

# A quantity of Kubernetes, such as 500Mi or 16Gi.
_BYTES = r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"


class Toleration(BaseModel):
    """A toleration of a taint, in the form of Kubernetes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str | None = None
    operator: str = Field("Exists", pattern="^(Exists|Equal)$")
    value: str | None = None
    effect: str | None = Field(None, pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")


class Scale(BaseModel):
    """Resources. Not part of the identity of a run: an interrupted run can continue with more workers.

    Fields about nodes only apply on Kubernetes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(1, ge=1, le=4096, description="processes that train together")
    min_workers: int | None = Field(
        None, ge=1, le=4096, description="minimum while nodes are missing, then up to workers again; null: all or none"
    )
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: int = Field(0, ge=0, le=1)
    max_failures: int = Field(3, ge=0, description="how often lost workers are replaced before the next checkpoint")
    wait_minutes: float = Field(20.0, ge=0, description="timeout for the nodes of the workers")
    workers_per_node: int = Field(1, ge=1, le=64, description="processes that share a node, its disk and its memory")
    memory_per_worker: str = Field("8Gi", pattern=_BYTES, description="as Kubernetes writes it, such as 16Gi")
    shared_memory: str = Field("2Gi", pattern=_BYTES, description="per node, for DeepSpeed and for Ray's objects")
    scratch: str = Field("50Gi", pattern=_BYTES, description="on the disk of a node, for decoded images")
    accelerator: str | None = Field(None, description="product of the GPU, from the label of nodes; null: any")
    spot: bool = Field(False, description="use interruptible nodes; requires min_workers")
    node_selector: dict[str, str] = Field({}, description="labels that nodes must have")
    tolerations: tuple[Toleration, ...] = ()
    queue: str | None = Field(None, description="Kueue's local queue; null: the default of the platform")
    priority: str | None = Field(None, description="priority class; null: the default of the platform")

    @property
    def least_workers(self) -> int:
        """The minimum number of workers."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def elastic(self) -> bool:
        """Whether it continues with fewer workers."""
        return self.least_workers < self.workers

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least_workers > self.workers:
            raise RecipeError(
                f"expected at most scale.workers = {self.workers}, got {self.min_workers}", field="scale.min_workers"
            )
        return self
