"""What a cluster's operator has decided about jobs: the ConfigMap ``cytoray-platform`` that the chart writes."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cytoray_services.jobs.scale import Toleration

CONFIG_MAP = "cytoray-platform"
KEY = "platform.yaml"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Images(_Frozen):
    """Container images of jobs."""

    cpu: str = "cytoray:0.1.0-cpu"
    gpu: str = "cytoray:0.1.0-cuda"
    pull_policy: str = Field("IfNotPresent", pattern="^(Always|IfNotPresent|Never)$")
    pull_secrets: tuple[str, ...] = ()


class Nodes(_Frozen):
    """How nodes of a kind are asked for."""

    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()


class Gpus(Nodes):
    """How nodes with GPUs are asked for.

    Attributes
    ----------
    resource
        What the device plug-in calls a GPU.
    product_label
        Label of nodes that ``scale.accelerator`` is compared with.
    """

    resource: str = "nvidia.com/gpu"
    product_label: str = "nvidia.com/gpu.product"
    tolerations: tuple[Toleration, ...] = (Toleration(key="nvidia.com/gpu", effect="NoSchedule"),)


class Platform(_Frozen):
    """What every job of a namespace gets.

    Attributes
    ----------
    images, gpus, spot
        See there.
    service_account
        Of all pods of a job.
    environment
        Variables of all containers, such as ``MLFLOW_TRACKING_URI``.
    secrets
        Names of secrets whose keys become variables, such as those of a bucket.
    home_claim
        The volume claim that holds ``CYTORAY_HOME``, written to by all nodes; None keeps it on the disk of a single pod
        that does all, and is gone with it unless artifacts go elsewhere.
    data_claims
        Volume claims that ``pvc://claim/path`` may name.
    queue
        Kueue's local queue; None starts jobs at once.
    priority
        Priority class; None for the cluster's default.
    submitter
        KubeRay's submission mode.
    keep_seconds
        How long the cluster of a job that has ended is kept.
    keep_days
        How long a job that has ended is listed, with what it printed.
    autoscaled
        Whether the cluster adds nodes for pods that wait: then a job that no node of today can take is submitted with a
        warning, otherwise it is refused.
    deadline_seconds
        How long a job may take; None for as long as it does.
    head_cpus, head_memory
        Of the head, where the driver of the training runs, which checks and scores.
    """

    images: Images = Images()
    gpus: Gpus = Gpus()
    spot: Nodes = Nodes()
    service_account: str = "cytoray-training"
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    home_claim: str | None = "cytoray-home"
    data_claims: tuple[str, ...] = ()
    queue: str | None = None
    priority: str | None = None
    submitter: str = Field("K8sJobMode", pattern="^(K8sJobMode|HTTPMode|SidecarMode)$")
    keep_seconds: int = Field(600, ge=0)
    keep_days: int = Field(30, ge=1)
    autoscaled: bool = True
    deadline_seconds: int | None = Field(None, ge=1)
    head_cpus: str = "2"
    head_memory: str = "8Gi"
