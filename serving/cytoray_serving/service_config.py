"""What a service serves and within which limits: one YAML file, checked whole before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from cytoray_analysis.errors import RequestError
from cytoray_services.configuration import read_configuration
from cytoray_serving.front.limits import FrontLimits
from cytoray_serving.places import Allowed
from cytoray_serving.replica import ReplicaOptions


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Replicas(_Frozen):
    """How many copies of a model run.

    Attributes
    ----------
    least, most
        Copies; where they differ, what waits decides. A least of 0 stops the last one when nobody asks.
    megapixels
        Waiting for each copy before another is started.
    idle_seconds
        Without a request until a copy too many ends.
    """

    least: int = Field(default=1, ge=0)
    most: int = Field(default=1, ge=1)
    megapixels: float = Field(default=8.0, gt=0)
    idle_seconds: float = Field(default=60.0, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least is {self.least}, more than most, which is {self.most}")
        return self


class Needs(_Frozen):
    """What each copy of a model, or each worker of a job, holds of its node.

    Attributes
    ----------
    cpus
        Cores; on a cluster also the threads of its network where `run` does not say otherwise.
    gpus
        Cards, or a share of one; null for none on a cluster, and on one machine for a share of the cards that it has.
    nodes
        Custom resources of Ray, which tell nodes apart, such as ``{large: 1}``.
    """

    cpus: float = Field(default=1.0, ge=0)
    gpus: float | None = Field(default=None, ge=0)
    nodes: dict[str, float] = {}

    @property
    def options(self) -> dict[str, Any]:
        """Return them as Ray takes them."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus or 0.0, "resources": dict(self.nodes)}


class ModelConfig(_Frozen):
    """One model with replicas of its own.

    Attributes
    ----------
    model
        ``name``, ``name@alias``, ``name/version`` or a bundle folder.
    replicas
        How many.
    needs
        What each of them holds of its node.
    run
        How each of them runs it.
    """

    model: str = Field(min_length=1)
    replicas: Replicas = Replicas()
    needs: Needs = Needs()
    run: ReplicaOptions = ReplicaOptions()


class SharedConfig(_Frozen):
    """Replicas that any other registered model is loaded into when it is asked for.

    Attributes
    ----------
    models
        That one replica holds; the one that was not asked for the longest goes first.
    """

    replicas: Replicas = Replicas(least=0, most=1)
    needs: Needs = Needs()
    models: int = Field(default=4, ge=1)
    run: ReplicaOptions = ReplicaOptions()


class RequestLimits(_Frozen):
    """What the gateway takes at most.

    Attributes
    ----------
    body_megabytes
        Of one request.
    bodies_megabytes
        Of all requests that are being answered by one gateway.
    waiting_requests, waiting_megapixels
        For one model at one gateway; one request alone is always taken.
    seconds
        For one answer; a request can ask for less.
    """

    body_megabytes: int = Field(default=256, ge=1)
    bodies_megabytes: int = Field(default=2048, ge=1)
    waiting_requests: int = Field(default=256, ge=1)
    waiting_megapixels: float = Field(default=1024.0, gt=0)
    seconds: float = Field(default=300.0, gt=0)


class JobsConfig(_Frozen):
    """Work in bulk.

    Attributes
    ----------
    workers
        Of one job at most, each a process with the model loaded.
    at_once
        Jobs that are worked on at a time; the others wait.
    needs
        What each worker holds of its node.
    run
        How workers run the models.
    """

    workers: int = Field(default=2, ge=1)
    at_once: int = Field(default=1, ge=1)
    needs: Needs = Needs()
    run: ReplicaOptions = ReplicaOptions()


_Section = TypeVar("_Section", ModelConfig, SharedConfig, JobsConfig)


class ServiceConfig(_Frozen):
    """A whole service.

    Attributes
    ----------
    models
        Those with replicas of their own.
    shared
        For all other registered models; null serves none.
    pipelines
        By name, the models that work one after the other, such as ``{count: [nuclei, bloodcells]}``.
    gateways
        Processes that speak HTTP and gRPC.
    gateway_nodes
        The custom resource of Ray that nodes for gateways offer, one for each; null puts gateways anywhere.
    metrics_port
        Where each gateway tells Prometheus of itself; there can be one gateway on a node then. Null for only under
        ``/metrics`` of the service, where any of several gateways answers.
    limits, front, jobs
        See there. On a cluster `front` is read where Ray is started, from the variable CYTORAY_FRONT_LIMITS.
    public_names
        Hosts by which a service that asks for no token may be called besides this machine's own: of a tunnel, or of
        JupyterHub.
    allowed
        The places that requests may name; none by default.
    insecure_local
        Whether anybody may ask without a token.
    tokens
        The file of the tokens; null for the one in CYTORAY_HOME.
    poll_seconds
        Between two looks at the registry.
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
    allowed: Allowed = Allowed()
    insecure_local: bool = False
    tokens: Path | None = None
    poll_seconds: float = Field(default=1.0, gt=0)

    @property
    def largest_image(self) -> int:
        """Pixels of the largest image that any model answers at once."""
        return max(
            [one.run.largest_image for one in self.models] + ([self.shared.run.largest_image] if self.shared else [])
        )

    @model_validator(mode="after")
    def _pipelines_have_steps(self) -> Self:
        for name, steps in self.pipelines.items():
            if len(steps) < 2:
                raise ValueError(f"the pipeline {name} needs at least two models, got {len(steps)}")
        return self


def read_config(path: Path) -> ServiceConfig:
    """Read the configuration of a service; see :func:`cytoray_services.configuration.read_configuration`."""
    return read_configuration(path, ServiceConfig, guide="docs/guides/serving.md")


def fitted(config: ServiceConfig, *, gpus: float, threads: int | None, job_threads: int | None) -> ServiceConfig:
    """Say how many cards and threads copies have that do not say so themselves; without a card they run on the CPU.

    Parameters
    ----------
    gpus
        Of each replica; workers of jobs that do not say so have none.
    threads, job_threads
        Of each replica, and of each worker of a job; None for as many as they hold cores.
    """

    def fit(section: _Section, gpus: float, threads: int | None) -> _Section:
        held = gpus if section.needs.gpus is None else section.needs.gpus
        run = section.run.model_copy(
            update={
                "threads": section.run.threads or threads or max(1, int(section.needs.cpus)),
                "device": section.run.device or (None if held else "cpu"),
            }
        )
        return section.model_copy(update={"needs": section.needs.model_copy(update={"gpus": held}), "run": run})

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
    """Put together what a file and the command line say; the command line adds to the file.

    Parameters
    ----------
    replicas
        ``2``, or ``0-4``.

    Raises
    ------
    MissingFileError, RequestError
        The file is not there, or something does not fit.
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
    least, _, most = text.partition("-")
    try:
        return Replicas(least=int(least), most=int(most or least))
    except ValueError as error:
        raise RequestError(
            f"expected a number of replicas such as 2, or 0-4, got {text!r}",
            field="replicas",
            hint="the least comes first, the most is at least 1",
        ) from error
