"""On how much machine a training runs: the section ``scale`` of a recipe."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cytoray_analysis.errors import RecipeError

# A quantity of Kubernetes, such as 500Mi or 16Gi.
_BYTES = r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$"


class Toleration(BaseModel):
    """A taint of nodes that workers may run on, as Kubernetes has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str | None = None
    operator: str = Field("Exists", pattern="^(Exists|Equal)$")
    value: str | None = None
    effect: str | None = Field(None, pattern="^(NoSchedule|PreferNoSchedule|NoExecute)$")


class Scale(BaseModel):
    """On how much machine. Not part of a run's identity: an interrupted run may go on with more workers.

    What is said of nodes counts on Kubernetes only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    workers: int = Field(1, ge=1, le=4096, description="processes that train together")
    min_workers: int | None = Field(
        None, ge=1, le=4096, description="so few go on while nodes are missing, up to workers again; null: all or none"
    )
    cpus_per_worker: int = Field(1, ge=1)
    gpus_per_worker: int = Field(0, ge=0, le=1)
    max_failures: int = Field(3, ge=0, description="how often lost workers are replaced until the next checkpoint")
    wait_minutes: float = Field(20.0, ge=0, description="how long a cluster may take to give the workers their nodes")
    workers_per_node: int = Field(1, ge=1, le=64, description="processes that share a node, its disk and its memory")
    memory_per_worker: str = Field("8Gi", pattern=_BYTES, description="as Kubernetes writes it, such as 16Gi")
    shared_memory: str = Field("2Gi", pattern=_BYTES, description="of a node, for DeepSpeed and for Ray's objects")
    scratch: str = Field("50Gi", pattern=_BYTES, description="of a node's own disk, for decoded images")
    accelerator: str | None = Field(None, description="product of the GPU, as nodes are labelled; null: any")
    spot: bool = Field(False, description="on nodes that may be taken away; wants min_workers")
    node_selector: dict[str, str] = Field({}, description="labels that nodes must have")
    tolerations: tuple[Toleration, ...] = ()
    queue: str | None = Field(None, description="Kueue's local queue; null: the platform's")
    priority: str | None = Field(None, description="priority class; null: the platform's")

    @property
    def least_workers(self) -> int:
        """With so many workers at least it goes on."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def elastic(self) -> bool:
        """Whether it goes on with fewer workers."""
        return self.least_workers < self.workers

    def worker_counts(self) -> range:
        """Return how many workers there may be at a time."""
        return range(self.least_workers, self.workers + 1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least_workers > self.workers:
            raise RecipeError(
                f"expected at most scale.workers = {self.workers}, got {self.min_workers}", field="scale.min_workers"
            )
        return self
