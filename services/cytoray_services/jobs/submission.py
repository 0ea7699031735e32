"""Submissions: a validated recipe with its resources, or images for a bulk prediction."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from cytoray_analysis.errors import PlatformError, RequestError
from cytoray_services.jobs.job import Command
from cytoray_services.jobs.scale import Scale

_GROUP = "cytoray.jobs"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # the letters of Kubernetes for names of pods, which form no words


class Submission(BaseModel):
    """A recipe to run on a cluster.

    Attributes
    ----------
    id
        Unique among all jobs, and a valid name for Kubernetes: ``nuclei-x7k2q``.
    command
        The command to run with the recipe.
    name
        Name of the model.
    recipe
        The whole recipe as YAML, with overrides applied.
    scale
        Its section ``scale``.
    data
        All locations that it reads, for data and for the model that it starts from, as in the recipe: paths,
        ``s3://…``, ``pvc://claim/path``.
    within
        The only locations that the job may read; None for any.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    # KubeRay appends six characters for the cluster, and cuts names of its secret beyond 50.
    id: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,42}[a-z0-9])?$")
    command: Command
    name: str
    recipe: str
    scale: Scale
    data: tuple[str, ...]
    within: tuple[str, ...] | None = None


class BulkSubmission(BaseModel):
    """Images for a bulk prediction by a service.

    Attributes
    ----------
    model, version
        Model and version, as in addresses.
    request
        Body of ``POST /models/{model}/jobs``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str | None = None
    request: dict[str, JsonValue]


AnySubmission = Submission | BulkSubmission


def recipe_of(submission: AnySubmission) -> Submission:
    """Return a submission if it is a recipe, for backends that accept nothing else.

    Raises
    ------
    RequestError
        It is a bulk prediction.
    """
    if isinstance(submission, Submission):
        return submission
    raise RequestError(
        "expected a recipe, got a bulk prediction, which needs a service", field="--on", hint="use --on service:URL"
    )


def read_submission(text: str, overrides: Sequence[str] = (), *, command: Command = "train") -> Submission:
    """Validate a whole recipe, as ``cytoray train`` does, and prepare its submission.

    Parameters
    ----------
    text
        The recipe, YAML.
    overrides
        ``a.b=c``.

    Raises
    ------
    RecipeError
        The recipe is wrong; the message names the field.
    PlatformError
        The extra ``train`` is not installed.
    """
    found = [one for one in entry_points(group=_GROUP) if one.name == "recipe"]
    if not found:
        raise PlatformError("cytoray_training is not installed", hint="pip install 'cytoray[train]'")
    described: dict[str, Any] = found[0].load()(text, overrides, command)
    return Submission(id=_new_id(described["name"]), command=command, **described)


def _new_id(name: str) -> str:
    ending = "".join(secrets.choice(_LETTERS) for _ in range(5))
    letters_first = name if name[0].isalpha() else f"m-{name}"  # required for names of services in Kubernetes
    return f"{letters_first.replace('_', '-')[:38].strip('-')}-{ending}"
