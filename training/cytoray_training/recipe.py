"""The recipe: everything that decides what a training does, read from YAML and checked before anything starts."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.bundle import NetworkChoice, TaskChoice
from cytoray_analysis.errors import DatasetError, MissingFileError, RecipeError
from cytoray_analysis.images.intensity import IntensityScaling
from cytoray_analysis.plain_yaml import load_yaml
from cytoray_analysis.selection import EACH, EVERYTHING, Selection
from cytoray_services.datasets import absolute_place, read_place
from cytoray_services.jobs.scale import Scale

_Share = Annotated[float, Field(ge=0.0, lt=1.0)]
_Count = Annotated[int, Field(ge=1)]
_Side = Annotated[int, Field(ge=4, le=4096)]


def _place(value: Any) -> Path | str:
    if not isinstance(value, Path | str):
        raise PydanticCustomError("place", "input should be a folder or a URI")
    return read_place(value)


_Place = Annotated[Path | str, PlainValidator(_place)]

_HOW_A_STEP_IS_COMPUTED = ("engine", "zero_stage", "accumulate", "checkpoint_every")

CHANNELS: dict[str, tuple[str, ...]] = {"rgb": ("red", "green", "blue"), "grey": ("grey",)}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Start(_Section):
    """Whose weights a training starts from."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), validate_by_name=True)

    source: str = Field(alias="from", description="registry:NAME[@ALIAS], a bundle or transformers folder, a hub name")
    trunk: Literal["frozen", "finetune"] = Field("finetune", description="what becomes of the weights taken over")
    rate: float = Field(0.1, gt=0, le=1, description="learning rate of what was taken over, over that of the rest")


class Model(_Section):
    """What is trained, and under which name it is registered."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="name in the registry")
    task: TaskChoice = TaskChoice()
    network: NetworkChoice = NetworkChoice()
    start: Start | None = Field(None, description="whose weights to start from; null: from none")


class Shards(_Section):
    """When and how the decoded training images are cut into parts, so that no node holds them all."""

    use: Literal["auto", "never", "always"] = Field("auto", description="auto: when they exceed above_gigabytes")
    above_gigabytes: float = Field(32.0, ge=0, description="decoded training images that every node may hold")
    megabytes: float = Field(128.0, gt=0, description="size of a shard; an image that is larger has its own")
    held: _Count = Field(8, description="shards that a worker draws from at a time, about; as many are on the way")


class Data(_Section):
    """Which images, and how the model sees them."""

    root: _Place | tuple[_Place, ...] = Field(
        description="folder of the data set, s3://bucket/prefix or pvc://claim/path; or several trained on together"
    )
    validation: _Place | tuple[_Place, ...] = Field((), description="further folders, all for validation")
    axes: Literal["YX", "ZYX"] = Field("YX", description="spatial axes of what the network sees")
    planes: int | None = Field(None, ge=2, description="planes of a z-stack that enter a flat network as channels")
    balance: float = Field(0.0, ge=0, le=1, description="0 draws classes as often as they are, 1 all equally often")
    columns: dict[str, str] = Field({}, description="what the manifest's columns are called: {image: path, …}")
    where: dict[str, str] = Field({}, description="keep only rows whose column matches the pattern")
    channels: Literal["rgb", "grey"] | tuple[str, ...] = "grey"
    grey_as_rgb: bool = Field(True, description="repeat a single channel where the model takes three")
    pixel_size: float | None = Field(None, gt=0, description="micrometres per pixel that images are resampled to")
    agreement: float | None = Field(
        None, gt=0, le=1, description="score of annotators against each other; null: unknown"
    )
    scaling: IntensityScaling = IntensityScaling()
    folds: int | None = Field(None, ge=2, le=100, description="cross-validate with so many folds; null: not")
    group: str | tuple[str, ...] | None = Field(
        None,
        description="column whose equal values stay together in folds and drawn splits, or several: the first that is "
        "there; null: group, if any",
    )
    stratify: str | None = Field(None, description="column spread evenly over the folds; null: the class, if any")
    draw_test: bool = Field(True, description="draw a split test from images that would train, where none is given")
    shards: Shards = Shards()
    select: Selection = Field(
        EVERYTHING, description="what of each image is taken: {channel: [DAPI], plane: max, …}; masks follow"
    )

    @model_validator(mode="after")
    def _something(self) -> Data:
        for field, what in (("root", "a folder or a URI"), ("channels", "the name of a channel, rgb or grey")):
            if getattr(self, field) == ():
                raise RecipeError(
                    f"expected {what}, got an empty list",
                    field=f"data.{field}",
                    hint="name at least one" if field == "root" else "name at least one, or leave it out for grey",
                )
        return self

    @model_validator(mode="after")
    def _one_series(self) -> Data:
        if self.select.series == EACH:
            raise RecipeError(
                "expected one series of each image, got each",
                field="data.select.series",
                hint="name a series: there is one truth for an image",
            )
        return self

    @property
    def roots(self) -> tuple[Path | str, ...]:
        """The folders of all data sets, and the URIs of those that lie elsewhere."""
        return self.root if isinstance(self.root, tuple) else (self.root,)

    @property
    def group_column(self) -> str | None:
        """The one column that says it for every image; None where each image carries what its manifest says."""
        return self.group if isinstance(self.group, str) else None

    @property
    def groups(self) -> tuple[str, ...]:
        """The columns that may say what stays together."""
        return (self.group,) if isinstance(self.group, str) else self.group or ()

    @property
    def validation_roots(self) -> tuple[Path | str, ...]:
        """The folders that are for validation only."""
        return self.validation if isinstance(self.validation, tuple) else (self.validation,)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One name per channel that the network takes."""
        return CHANNELS[self.channels] if isinstance(self.channels, str) else self.channels


class Training(_Section):
    """How long, how fast, and on which engine."""

    epochs: _Count = 100
    minutes: float | None = Field(None, gt=0, description="wall-clock budget; the schedule ends with it")
    crops_per_epoch: _Count = 512
    crop_size: Annotated[int, Field(ge=8, le=4096)] | tuple[_Side, ...] = Field(
        256, description="side of a crop in pixels, of all axes or of each; cells: of the window around one"
    )
    label_share: float = Field(1.0, gt=0, le=1, description="share of the training labels that is used")
    batch_size: _Count = Field(16, description="crops per optimizer step, over all workers")
    accumulate: _Count = Field(1, description="backward passes per optimizer step, with all workers")
    learning_rate: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(1e-2, ge=0, le=1)
    warmup: _Share = Field(0.05, description="share of the training spent warming up")
    gradient_clip: float = Field(1.0, gt=0)
    ema_decay: _Share = Field(0.998, description="running average of the weights; 0 turns it off")
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    batch_norm: Literal["local", "synchronised"] = Field(
        "local", description="statistics over the crops of a pass on each worker, or on all workers together"
    )
    engine: Literal["torch", "deepspeed"] = "deepspeed"
    zero_stage: int = Field(1, ge=0, le=3, description="ZeRO stage of the deepspeed engine")
    metric: str | None = Field(None, description="validation score that chooses the best weights; null: the task's")
    validate_every: _Count = Field(1, description="epochs between validations")
    checkpoint_every: _Count | None = Field(None, description="steps between checkpoints inside an epoch")
    early_stopping: _Count | None = Field(None, description="validations without gain before stopping; null: never")
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _a_step_per_epoch(self) -> Training:
        if self.crops_per_epoch < self.batch_size:
            raise RecipeError(
                f"expected at least one batch of training.batch_size = {self.batch_size} crops per epoch, "
                f"got {self.crops_per_epoch}",
                field="training.crops_per_epoch",
                hint=f"raise training.crops_per_epoch to {self.batch_size} or more, or lower training.batch_size",
            )
        return self

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.crops_per_epoch // self.batch_size

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training, unless time or patience ends it earlier."""
        return self.epochs * self.steps_per_epoch


class Halving(_Section):
    """When a search gives a trial up: asynchronous successive halving (ASHA, arXiv:1810.05934)."""

    grace: _Count | None = Field(None, description="epochs of the recipe to the first rung; null: to a validation")
    reduction: float = Field(3.0, gt=1, le=100, description="of so many trials one goes on; and rungs are so far apart")


class Population(_Section):
    """How a population of trainings learns from its best (population-based training, arXiv:1711.09846)."""

    size: int = Field(4, ge=2, le=1000, description="members; later trials go on from one of them")
    interval: _Count = Field(1, description="epochs after which a member compares itself with the others")
    share: float = Field(0.25, gt=0, le=0.5, description="of members, how many are replaced by as many of the best")
    factor: float = Field(1.2, gt=1, le=10, description="what a setting that is taken over is multiplied or divided by")


class Tune(_Section):
    """What a search tries. Not part of a run's identity: it shapes which recipes are trained, none of them."""

    space: dict[str, dict[str, Any]] = Field(
        min_length=1, description="field: {choice: […]}, {range: [low, high]} or {log_range: [low, high]}"
    )
    searcher: Literal["random", "optuna", "population"] = "optuna"
    trials: _Count | None = Field(20, description="how many recipes are tried; null: as many as the hours allow")
    hours: float | None = Field(None, gt=0, description="how long the search goes on; null: until all were tried")
    concurrent: _Count = Field(1, description="trials at a time, each with scale.workers workers")
    asha: Halving | None = Field(Halving(), description="when a trial is given up; null: never")
    population: Population = Population()
    confirm: int = Field(
        2, ge=0, le=20, description="seeds to train the best and the recipe as it is with once more; 0: not"
    )
    refit: dict[str, Any] | None = Field(
        None, description="train the best once more with these fields changed; null: take the best trial's weights"
    )
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _some_budget(self) -> Tune:
        if self.trials is None and self.hours is None:
            raise RecipeError("expected a budget in trials, hours or both, got none", field="tune.trials")
        return self

    @model_validator(mode="after")
    def _more_than_one_seed(self) -> Tune:
        if self.confirm == 1:
            raise RecipeError(
                "expected at least 2 seeds, got 1, which does not tell how much the seed matters",
                field="tune.confirm",
                hint="use 2, or 0 to leave the comparison out",
            )
        return self


class Recipe(_Section):
    """One training, completely described."""

    model: Model
    data: Data
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    scale: Scale = Scale()
    tune: Tune | None = Field(None, description="what cytoray tune tries; cytoray train does not look at it")

    @model_validator(mode="after")
    def _whole_batches(self) -> Recipe:
        parts = self.scale.workers * self.training.accumulate
        if self.training.batch_size % parts:
            raise RecipeError(
                f"expected a multiple of scale.workers × training.accumulate = {parts}, got {self.training.batch_size}",
                field="training.batch_size",
                hint=f"use {max(parts, round(self.training.batch_size / parts) * parts)}",
            )
        return self

    @property
    def crops_per_pass(self) -> int:
        """Crops that one worker takes through the network at a time, at most: what its memory must hold."""
        return self.training.batch_size // (self.scale.workers * self.training.accumulate)

    def passes(self, workers: int) -> int:
        """Return into how many passes so many workers divide a step: more, where there are fewer workers.

        So the batch stays what it is while workers are missing, and none takes more crops at a time; but two instead of
        one where some would go without any otherwise.
        """
        batch = self.training.batch_size
        return min(-(-batch // (workers * self.crops_per_pass)), batch // workers)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``a.b=c`` overrides, whose values are parsed as YAML.

    A relative ``data.root`` is taken from the working directory.

    Raises
    ------
    MissingFileError
        There is no such recipe.
    RecipeError
        It is no YAML mapping, names an unknown field, or holds a value out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"expected a recipe file, found none at {path}", field="recipe")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is no text: {error}", field="recipe") from error
    return read_recipe(text, overrides, name=str(path))


def read_recipe(text: str, overrides: Sequence[str] = (), *, name: str = "the recipe") -> Recipe:
    """Read a recipe that is at hand as text; see :func:`load_recipe`."""
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name} is not valid YAML: {error}", field="recipe") from error
    if not isinstance(content, dict):
        raise RecipeError(f"expected a mapping at the top of {name}, got {type(content).__name__}", field="recipe")
    _require_apart(overrides)
    for override in overrides:
        content = _overridden(content, override)
    return parse_recipe(content)


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """Validate a recipe given as nested mappings.

    Raises
    ------
    RecipeError
        With ``field`` set to the dotted path of the first offending field.
    """
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        raise _readable(error) from None
    roots = tuple(absolute_place(root) for root in recipe.data.roots)
    places = {
        "root": roots[0] if len(roots) == 1 else roots,
        "validation": tuple(absolute_place(root) for root in recipe.data.validation_roots),
    }
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=places)})


def changed_recipe(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values at dotted paths, validated like one that was read.

    Raises
    ------
    RecipeError
        See :func:`parse_recipe`.
    """
    content = recipe.model_dump(mode="json")
    for path, value in values.items():
        content = _with_value(content, path.split("."), value, path)
    return parse_recipe(content)


def recipe_hash(recipe: Recipe) -> str:
    """Return the sha256 of all that shapes the result.

    See :func:`shaping_fields` for what does not count.
    """
    return hashlib.sha256(json.dumps(shaping_fields(recipe), sort_keys=True).encode()).hexdigest()


def shaping_fields(recipe: Recipe) -> dict[str, Any]:
    """Return the fields of a recipe that shape the result, as JSON.

    Where the data lie (their content has its own hash), how they are cut and how many workers there are do not count;
    nor do engine, ZeRO stage, passes per step and how often checkpoints are written, which are how a step is computed
    and not what it does; nor do a search, folds and how far annotators agree, which tell what else is trained and how
    it is judged.
    """
    elsewhere = {"root", "validation", "shards", "folds", "group", "stratify", "agreement"}
    if not recipe.data.select.given():  # which recipes before there was a choice did not have
        elsewhere.add("select")
    if recipe.data.draw_test:
        elsewhere.add("draw_test")
    # Their defaults, not left out: the hash of a recipe that does not name them stays what it was.
    same = {name: Training.model_fields[name].default for name in _HOW_A_STEP_IS_COMPUTED}
    recipe = recipe.model_copy(update={"training": recipe.training.model_copy(update=same)})
    exclude: dict[str, Any] = {"data": elsewhere, "scale": True, "tune": True}
    if recipe.training.batch_norm == "local":  # as it was before there was a choice
        exclude["training"] = {"batch_norm"}
    return recipe.model_dump(mode="json", exclude=exclude)


def _require_apart(overrides: Sequence[str]) -> None:
    """Refuse overrides of which one would undo another: of the same field, or of a field and one that holds it."""
    seen: dict[tuple[str, ...], str] = {}
    for text in overrides:
        keys = _keys_of(text)
        for other, earlier in seen.items():
            short = min(len(keys), len(other))
            if keys[:short] == other[:short]:
                raise RecipeError(
                    f"expected every field once, got {earlier!r} and {text!r}",
                    field="--set",
                    hint=f"keep one of them: both set {'.'.join(keys if len(keys) > len(other) else other)}",
                )
        seen[keys] = text


def _keys_of(text: str) -> tuple[str, ...]:
    return tuple(key.strip() for key in text.partition("=")[0].split("."))


def _overridden(content: dict[str, Any], text: str) -> dict[str, Any]:
    path, separator, value = text.partition("=")
    keys = list(_keys_of(text))
    if not separator or not all(keys):
        raise RecipeError(f"expected FIELD=VALUE, such as training.epochs=10, got {text!r}", field="--set")
    try:
        parsed = load_yaml(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"the value of {text!r} is not valid YAML: {error}", field=path) from error
    return _with_value(content, keys, parsed, path)


def _with_value(content: dict[str, Any], keys: list[str], value: Any, path: str) -> dict[str, Any]:
    if len(keys) == 1:
        return {**content, keys[0]: value}
    inner = content.get(keys[0]) or {}
    if not isinstance(inner, dict):
        raise RecipeError(f"{keys[0]!r} is a value ({inner!r}) and has no field {keys[1]!r}", field=path)
    return {**content, keys[0]: _with_value(inner, keys[1:], value, path)}


def _readable(error: ValidationError) -> RecipeError:
    """Turn pydantic's report into one sentence with a path and a way out."""
    problems = error.errors()
    first = problems[0]
    for problem in problems:
        raised = problem.get("ctx", {}).get("error")
        if isinstance(raised, RecipeError):
            return raised
        if isinstance(raised, DatasetError):
            return RecipeError(raised.message, field=_dotted(problem["loc"]), hint=raised.hint)
    field = _dotted(first["loc"])
    others = sorted({_dotted(problem["loc"]) for problem in problems} - {field})
    more = f" (also wrong: {', '.join(others)})" if others else ""
    if first["type"] == "extra_forbidden":
        known = _fields_beside(first["loc"])
        close = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
        return RecipeError(f"there is no field {field!r}{more}", field=field, hint=hint)
    if first["type"] == "missing":
        return RecipeError(f"{field!r} is missing{more}", field=field, hint="add it to the recipe or use --set")
    message = first["msg"][0].lower() + first["msg"][1:]
    return RecipeError(f"{field}: {message}, got {first['input']!r}{more}", field=field)


def _dotted(location: tuple[str | int, ...]) -> str:
    # Members of a union appear as extra steps of the path; they are no names of ours.
    inner = ("literal[", "tuple[", "function-", "constrained-")
    return ".".join(str(step) for step in location if not str(step).startswith(inner)) or "recipe"


def _fields_beside(location: tuple[str | int, ...]) -> list[str]:
    section: type[BaseModel] = Recipe
    for step in location[:-1]:
        kind = section.model_fields[str(step)].annotation
        candidates = [kind, *get_args(kind)]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return sorted(section.model_fields)
