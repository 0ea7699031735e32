"""The configuration of a service: one YAML file, validated before anything starts."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cytoray_analysis.errors import RequestError
from cytoray_services.configuration import read_configuration
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.scopes import Team
from cytoray_serving.front.limits import FrontLimits
from cytoray_serving.gateway.teams import TeamConfig
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.viewer.limits import ViewerConfig


class _Frozen(BaseModel):
    """A section of the file; `former_names` are also read, with a warning."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    former_names: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, content: Any) -> Any:
        if not isinstance(content, dict):
            return content
        content = dict(content)
        for old, new in cls.former_names.items():
            if old in content:
                print(f"warning: {old} is now {new}; please change the configuration", file=sys.stderr)
                given, default = content.pop(old), content.get(new)
                # The values of a chart have the new name with a default: what a user gave goes before it.
                content[new] = {**default, **given} if isinstance(given, dict) and isinstance(default, dict) else given
        return content


class Replicas(_Frozen):
    """The number of replicas of a model.

    Attributes
    ----------
    min_replicas, max_replicas
        Limits; between them replicas scale with the queued megapixels. 0 scales to zero.
    megapixels
        Queued megapixels per replica before another is started.
    idle_seconds
        Seconds without a request until a surplus replica stops.
    """

    former_names = {"least": "min_replicas", "most": "max_replicas"}
    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    megapixels: float = Field(default=8.0, gt=0)
    idle_seconds: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas is {self.min_replicas}, more than max_replicas: {self.max_replicas}")
        return self


class Resources(_Frozen):
    """The resources of each replica of a model, or of each worker of a job.

    Attributes
    ----------
    cpus
        Cores; on a cluster also the threads of its network, unless `run` sets them.
    gpus
        GPUs, or a share of one; null for none on a cluster, and for an equal share of the GPUs on one machine.
    nodes
        Custom resources of Ray that select nodes, such as ``{large: 1}``.
    """

    cpus: float = Field(default=1.0, ge=0)
    gpus: float | None = Field(default=None, ge=0)
    nodes: dict[str, float] = {}

    @property
    def options(self) -> dict[str, Any]:
        """Return them in the form of Ray."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus or 0.0, "resources": dict(self.nodes)}


class ModelConfig(_Frozen):
    """One model with dedicated replicas.

    Attributes
    ----------
    model
        ``name``, ``name@alias``, ``name/version`` or a bundle folder.
    replicas
        Number of replicas.
    resources
        Resources of each replica.
    run
        Options of each replica.
    """

    model: str = Field(min_length=1)
    replicas: Replicas = Replicas()
    former_names = {"needs": "resources"}
    resources: Resources = Resources()
    run: ReplicaOptions = ReplicaOptions()


class SharedConfig(_Frozen):
    """Replicas that load any other registered model on request.

    Attributes
    ----------
    models
        Maximum number of models in one replica; the least recently used is removed first.
    """

    replicas: Replicas = Replicas(min_replicas=0, max_replicas=1)
    former_names = {"needs": "resources"}
    resources: Resources = Resources()
    models: int = Field(default=4, ge=1)
    run: ReplicaOptions = ReplicaOptions()


class RequestLimits(_Frozen):
    """Limits of a gateway.

    Attributes
    ----------
    body_megabytes
        Maximum size of one request.
    bodies_megabytes
        Maximum size of all concurrent requests at one gateway.
    waiting_requests, waiting_megapixels
        Maximum queue of one model at one gateway; a single request is always accepted.
    caller_share
        Maximum share of both for one caller (the name of a token) and all models, so that no caller fills a queue; 1
        for no separate limit. Tokens with the scope administer have no such limit.
    seconds
        Timeout of one answer; a request can set a shorter one.
    """

    body_megabytes: int = Field(default=256, ge=1)
    bodies_megabytes: int = Field(default=2048, ge=1)
    waiting_requests: int = Field(default=256, ge=1)
    waiting_megapixels: float = Field(default=1024.0, gt=0)
    caller_share: float = Field(default=0.75, gt=0, le=1)
    seconds: float = Field(default=300.0, gt=0)


class JobsConfig(_Frozen):
    """Settings of bulk prediction, and of training runs.

    Attributes
    ----------
    url
        Address of the jobs service, for training runs from the page; null for none.
    workers
        Maximum number of workers of one job, each a process with the model loaded.
    max_concurrent
        Maximum number of concurrent jobs; the others are queued.
    per_caller
        Jobs of one caller (the name of a token) that have not ended; null for any number. Who administers has no limit.
    keep_days
        After which the record of a job that has ended is removed; 0 or null for never. Its answers stay.
    resources
        What each worker holds of its node.
    run
        How workers run the models.
    """

    url: str | None = Field(default=None, pattern=r"^https?://")
    workers: int = Field(default=2, ge=1)
    max_concurrent: int = Field(default=1, ge=1)
    per_caller: int | None = Field(default=100, ge=1)
    keep_days: float | None = Field(default=30, ge=0)
    former_names = {"needs": "resources", "at_once": "max_concurrent"}
    resources: Resources = Resources()
    run: ReplicaOptions = ReplicaOptions()


_Section = TypeVar("_Section", ModelConfig, SharedConfig, JobsConfig)


class ServiceConfig(_Frozen):
    """The configuration of a service.

    Attributes
    ----------
    models
        Models with dedicated replicas.
    shared
        Shared replicas for all other registered models; null for none.
    pipelines
        Models of each pipeline in order, by its name, such as ``{count: [nuclei, bloodcells]}``.
    gateways
        Number of processes for HTTP and gRPC.
    gateway_nodes
        Custom resource of Ray on nodes for gateways, one for each; null for any node.
    metrics_port
        Port of each gateway for Prometheus, at the address of ``--host``, or on a cluster at all addresses of its node;
        each node then has at most one gateway. Null for only ``/metrics`` of the service, where any of several gateways
        answers.
    limits, front, jobs, viewer
        See there. On a cluster `front` is read from the variable CYTORAY_FRONT_LIMITS when Ray starts.
    public_names
        Additional host names of a service without tokens, such as those of a tunnel or of JupyterHub.
        allowed
    Locations that requests may name; none by default.
        teams
    Settings of a team, by its name: its own locations and limits.
        insecure_local
    Whether no token is required.
        tokens
    The token file; null for the one in CYTORAY_HOME.
        poll_seconds
    Interval of polling the registry.
    """

    models: tuple[ModelConfig, ...] = ()
    shared: SharedConfig | None = SharedConfig()
    pipelines: dict[str, tuple[str, ...]] = {}
    gateways: int = Field(default=1, ge=1)
    gateway_nodes: str | None = None
    metrics_port: int | None = Field(default=None, ge=1, le=65535)
    limits: RequestLimits = RequestLimits()
    front: FrontLimits = FrontLimits()
    public_names: tuple[str, ...] = ()
    jobs: JobsConfig = JobsConfig()
    viewer: ViewerConfig = ViewerConfig()
    allowed: Allowed = Allowed()
    teams: dict[Team, TeamConfig] = {}
    insecure_local: bool = False
    tokens: Path | None = None
    poll_seconds: float = Field(default=1.0, gt=0)

    @property
    def largest_image(self) -> int:
        """Maximum number of pixels of an image in a request, over all models."""
        return max(
            [one.run.largest_image for one in self.models] + ([self.shared.run.largest_image] if self.shared else [])
        )

    @model_validator(mode="after")
    def _pipelines_have_steps(self) -> Self:
        for name, steps in self.pipelines.items():
            if len(steps) < 2:
                raise ValueError(f"expected at least two models in the pipeline {name}, got {len(steps)}")
        return self


def read_config(path: Path) -> ServiceConfig:
    """Read the configuration of a service; see :func:`cytoray_services.configuration.read_configuration`."""
    return read_configuration(path, ServiceConfig, guide="docs/guides/serving.md")


def fitted(config: ServiceConfig, *, gpus: float, threads: int | None, job_threads: int | None) -> ServiceConfig:
    """Set the GPUs and threads of replicas that do not set them; without a GPU they run on the CPU.

    Parameters
    ----------
    gpus
        GPUs of each replica; workers of jobs have none by default.
    threads, job_threads
        Threads of each replica, and of each worker of a job; None for the number of their cores.
    """

    def fit(section: _Section, gpus: float, threads: int | None) -> _Section:
        held = gpus if section.resources.gpus is None else section.resources.gpus
        run = section.run.model_copy(
            update={
                "threads": section.run.threads or threads or max(1, int(section.resources.cpus)),
                "device": section.run.device or (None if held else "cpu"),
            }
        )
        return section.model_copy(update={"resources": section.resources.model_copy(update={"gpus": held}), "run": run})

    return config.model_copy(
        update={
            "models": tuple(fit(one, gpus, threads) for one in config.models),
            "shared": config.shared and fit(config.shared, gpus, threads),
            "jobs": fit(config.jobs, 0.0, job_threads),
        }
    )


def configured(
    path: Path | None,
    *,
    models: Sequence[str],
    replicas: str,
    threads: int | None,
    device: str | None,
    largest_body: int | None,
    insecure_local: bool,
    roots: Sequence[Path],
) -> ServiceConfig:
    """Combine a file and the command line, which adds to the file.

    Parameters
    ----------
    replicas
        ``2``, or ``0-4``.

    Raises
    ------
    MissingFileError, RequestError
        The file does not exist, or a value is invalid.
    """
    config = ServiceConfig() if path is None else read_config(path)
    run = ReplicaOptions(threads=threads, device=device)
    own = tuple(ModelConfig(model=model, replicas=_replicas(replicas), run=run) for model in models)
    allowed = config.allowed.model_copy(update={"roots": (*config.allowed.roots, *(root.absolute() for root in roots))})
    changes: dict[str, Any] = {"models": (*config.models, *own), "allowed": allowed}
    if largest_body is not None:
        changes["limits"] = config.limits.model_copy(update={"body_megabytes": largest_body})
    if insecure_local:
        changes["insecure_local"] = True
    return config.model_copy(update=changes)


def _replicas(text: str) -> Replicas:
    minimum, _, maximum = text.partition("-")
    try:
        return Replicas(min_replicas=int(minimum), max_replicas=int(maximum or minimum))
    except ValueError as error:
        raise RequestError(
            f"expected a number of replicas such as 2, or 0-4, got {text!r}",
            field="replicas",
            hint="give the minimum first; the maximum is at least 1",
        ) from error
