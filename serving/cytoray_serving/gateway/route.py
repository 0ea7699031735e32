"""The route of a question: the versions that answer it, and their deployments."""

from __future__ import annotations

from dataclasses import dataclass

from cytoray_serving.schema import ModelStatus

SHARED = "shared"


@dataclass(frozen=True)
class Served:
    """One reference with dedicated replicas, and its names in addresses, the first of which is unique.

    Attributes
    ----------
    registered
        Whether it is in the registry, unlike a bundle folder.
    """

    reference: str
    names: tuple[str, ...]
    registered: bool = True


@dataclass(frozen=True)
class Target:
    """One version, and the deployment that answers with it.

    Attributes
    ----------
    reference
        ``name/version`` or a bundle folder.
    exact
        ``name/version#digest`` or the folder: what a replica loads, and its key there.
    deployment
        The reference of the deployment, or ``shared``.
    """

    reference: str
    exact: str
    deployment: str
    status: ModelStatus


@dataclass(frozen=True)
class Route:
    """The targets of a question.

    Attributes
    ----------
    name, version, keys
        The requested name and version, and the random numbers.
    target
        The version of the alias, or its canary.
    before
        The earlier models of a pipeline, in order.
    alias
        The requested alias; None if it is not followed.
    watched
        Whether the alias has a canary, so that the outcome of the question is reported.
    lane
        The lane for the question: 0, or a separate lane because its time is compared.
    shadow
        A second version that also gets the question; its answer is discarded.
    """

    name: str
    version: str | None
    keys: tuple[float, float]
    target: Target
    before: tuple[Target, ...] = ()
    alias: str | None = None
    watched: bool = False
    lane: int = 0
    shadow: Target | None = None
