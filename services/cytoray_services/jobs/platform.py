"""The configuration of jobs on a cluster: the ConfigMap ``cytoray-platform`` that the chart writes."""

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
    """How to request nodes of a kind."""

    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()


class Gpus(Nodes):
    """How to request nodes with GPUs.

    Attributes
    ----------
    resource
        Resource name of a GPU in the device plug-in.
    product_label
        Label of nodes for ``scale.accelerator``.
    """

    resource: str = "nvidia.com/gpu"
    product_label: str = "nvidia.com/gpu.product"
    tolerations: tuple[Toleration, ...] = (Toleration(key="nvidia.com/gpu", effect="NoSchedule"),)


class PrivateCA(_Frozen):
    """CA certificates as a ConfigMap in the namespace of the jobs; ``environment`` gives programs their path.

    Attributes
    ----------
    config_map
        Its name.
    key
        Key of the certificates, as PEM.
    """

    config_map: str
    key: str = "ca.crt"


class Platform(_Frozen):
    """Where jobs run, and what every job gets.

    Attributes
    ----------
    images, gpus, spot
        See there.
    namespace
        Namespace of jobs; None for the namespace of this ConfigMap.
    service_account
        Service account of all pods of a job.
    environment
        Variables of all containers, such as ``MLFLOW_TRACKING_URI``.
    secrets
        Names of secrets whose keys become variables, such as those of a bucket.
    home_claim
        The volume claim for ``CYTORAY_HOME``, writable by all nodes; None for the disk of a single pod that does all
        the work, which is lost with the pod unless artifacts are stored elsewhere.
    data_claims
        Volume claims that ``pvc://claim/path`` may name.
    private_ca
        Trusted CA certificates instead of those of the image; None for those of the image.
    queue
        Kueue's local queue; None starts jobs immediately.
    priority
        Priority class; None for the cluster's default.
    submitter
        KubeRay's submission mode.
    keep_seconds
        How long the cluster of an ended job is kept.
    keep_days
        How long an ended job is listed, with its log.
    autoscaled
        Whether the cluster adds nodes for pending pods: then a job that no existing node can run is submitted with a
        warning, otherwise it is refused.
    deadline_seconds
        Maximum time of a job; None for no limit.
    head_cpus, head_memory
        Resources of the head with the driver of the training run, which checks data and scores.
    """

    images: Images = Images()
    gpus: Gpus = Gpus()
    spot: Nodes = Nodes()
    namespace: str | None = Field(None, pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    service_account: str = "cytoray-training"
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    home_claim: str | None = "cytoray-home"
    data_claims: tuple[str, ...] = ()
    private_ca: PrivateCA | None = None
    queue: str | None = None
    priority: str | None = None
    submitter: str = Field("K8sJobMode", pattern="^(K8sJobMode|HTTPMode|SidecarMode)$")
    keep_seconds: int = Field(600, ge=0)
    keep_days: int = Field(30, ge=1)
    autoscaled: bool = True
    deadline_seconds: int | None = Field(None, ge=1)
    head_cpus: str = "2"
    head_memory: str = "8Gi"
