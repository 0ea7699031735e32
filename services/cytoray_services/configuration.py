"""Configurations of services: one YAML file each, validated completely before the start."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cytoray_analysis.errors import MissingFileError, RequestError
from cytoray_analysis.plain_yaml import load_yaml

Model = TypeVar("Model", bound=BaseModel)


def read_configuration(path: Path, model: type[Model], *, guide: str) -> Model:
    """Read a configuration.

    Parameters
    ----------
    model
        The schema.
    guide
        The page that lists the fields.

    Raises
    ------
    MissingFileError
        There is no such file.
    RequestError
        It is not YAML, contains a key twice, or a field is unknown or out of range.
    """
    import yaml

    if not path.is_file():
        raise MissingFileError(
            f"expected a configuration, {path} does not exist", field="config", hint="check the path"
        )
    hint = f"{guide} lists the fields"
    try:
        content: Any = load_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"expected YAML in {path}: {error}", field="config", hint=hint) from error
    try:
        return model.model_validate({} if content is None else content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise RequestError(
            f"{path}: {first['msg']}, got {str(first['input'])[:80]!r}", field=place or "config", hint=hint
        ) from error
