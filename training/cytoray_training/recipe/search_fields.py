"""Fields of a recipe that a search cannot change: it compares settings, on the same data."""

from __future__ import annotations

from collections.abc import Iterable

from cytoray_analysis.errors import RecipeError

_MODEL = ("model.name", "model.task", "model.start", "training.metric")
_DATA = (
    "root",
    "validation",
    "within",
    "columns",
    "where",
    "folds",
    "group",
    "stratify",
    "draw_validation",
    "kind",
    "shares",
)
_QUESTION = (*_MODEL, *(f"data.{name}" for name in _DATA), "tune")
_SCALE = ("data.shards", "training.label_share", "scale")


def require_searchable(path: str) -> None:
    """Refuse a field that cannot be searched, and all fields in it.

    Raises
    ------
    RecipeError
        The field cannot be searched.
    """
    if any(_is_in(path, fixed) for fixed in (*_QUESTION, *_SCALE)):
        raise RecipeError(
            f"expected a field that a search can vary, got {path!r}: all trials must use the same data, task and scale",
            field=f"tune.space.{path}",
        )


def require_same_question(refit: Iterable[str]) -> None:
    """Refuse fields of ``tune.refit`` that change data, task or metric, at any level; the scale may change.

    Raises
    ------
    RecipeError
        A field changes them.
    """
    for path in refit:
        if any(_is_in(path, fixed) or _is_in(fixed, path) for fixed in _QUESTION):
            raise RecipeError(
                f"expected fields such as training.epochs and scale.workers, got {path!r}: the last training run must "
                "use the data, task and metric of the trials",
                field=f"tune.refit.{path}",
                hint="name single fields; model, data and metric are those of the recipe",
            )


def _is_in(path: str, section: str) -> bool:
    return path == section or path.startswith(f"{section}.")
