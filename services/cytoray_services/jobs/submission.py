"""What is submitted: a recipe, checked whole, and what it needs of a cluster."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from cytoray_analysis.errors import PlatformError
from cytoray_services.jobs.job import Command
from cytoray_services.jobs.scale import Scale

_GROUP = "cytoray.jobs"
_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # as Kubernetes names pods: no words come about


class Submission(BaseModel):
    """A recipe on its way to a cluster.

    Attributes
    ----------
    id
        Unique among all jobs, and a name that Kubernetes takes: ``nuclei-x7k2q``.
    command
        What is done with the recipe.
    name
        Of the model.
    recipe
        The whole recipe as YAML, with all that was overridden.
    scale
        Its section ``scale``.
    data
        The places of its data as the recipe has them: paths, ``s3://…``, ``pvc://claim/path``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^[a-z]([a-z0-9-]{0,45}[a-z0-9])?$")
    command: Command
    name: str
    recipe: str
    scale: Scale
    data: tuple[str, ...]


def read_submission(text: str, overrides: Sequence[str] = (), *, command: Command = "train") -> Submission:
    """Check a recipe whole, as ``cytoray train`` would, and prepare it to be submitted.

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
        Training is not installed here.
    """
    found = [one for one in entry_points(group=_GROUP) if one.name == "recipe"]
    if not found:
        raise PlatformError("cytoray_training is not installed here", hint="pip install 'cytoray[train]'")
    described: dict[str, Any] = found[0].load()(text, overrides, command)
    return Submission(id=_new_id(described["name"]), command=command, **described)


def _new_id(name: str) -> str:
    ending = "".join(secrets.choice(_LETTERS) for _ in range(5))
    letters_first = name if name[0].isalpha() else f"m-{name}"  # as services of Kubernetes want it
    return f"{letters_first.replace('_', '-')[:40].strip('-')}-{ending}"
