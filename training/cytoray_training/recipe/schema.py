"""The recipe: everything that decides what a training run does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, field_validator, model_validator
from pydantic_core import PydanticCustomError

from cytoray_analysis.augmentation import Augmentation
from cytoray_analysis.bundle import NetworkChoice, TaskChoice
from cytoray_analysis.errors import RecipeError
from cytoray_analysis.images.intensity import IntensityScaling
from cytoray_analysis.selection import EACH, EVERYTHING, Selection
from cytoray_services.datasets import path_or_uri
from cytoray_services.jobs.scale import Scale
from cytoray_training.recipe.search_fields import require_same_question

_Share = Annotated[float, Field(ge=0.0, lt=1.0)]
_Count = Annotated[int, Field(ge=1)]
_Side = Annotated[int, Field(ge=4, le=4096)]


def _place(value: Any) -> Path | str:
    if not isinstance(value, Path | str):
        raise PydanticCustomError("place", "input should be a folder or a URI")
    return path_or_uri(value)


_Place = Annotated[Path | str, PlainValidator(_place)]

REGISTRY = "registry:"
# Registry: NAME[@ALIAS] or NAME/VERSION; hub: NAME or OWNER/NAME.
_NAMED_MODEL = re.compile(r"registry:\w[\w.-]*([@/]\w[\w.-]*)?|\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)

CHANNELS: dict[str, tuple[str, ...]] = {"rgb": ("red", "green", "blue"), "grey": ("grey",)}


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Start(_Section):
    """The initial weights of a training run."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), validate_by_name=True)

    source: str = Field(
        alias="from",
        description="registry:NAME[@ALIAS], a bundle or transformers folder (a path or pvc://claim/path), a hub name",
    )
    trunk: Literal["frozen", "finetune"] = Field("finetune", description="how the initial weights are trained")
    rate: float = Field(0.1, gt=0, le=1, description="learning rate of the initial weights, relative to the rest")

    @model_validator(mode="after")
    def _source_of_one_kind(self) -> Start:
        place = self.place  # raises an error for a URI of another kind
        if self.source.startswith(REGISTRY) and place is not None:
            problem = "expected registry:NAME, registry:NAME@ALIAS or registry:NAME/VERSION"
        elif isinstance(place, str) and not place.startswith("pvc://"):
            problem = "expected a registered model, a folder (a path or pvc://claim/path) or the name of a hub"
        else:
            return self
        raise RecipeError(f"{problem}, got {self.source!r}", field="model.start.from")

    @property
    def place(self) -> Path | str | None:
        """The folder, a path or ``pvc://…``; None for a registered model or one of a hub."""
        return None if _NAMED_MODEL.fullmatch(self.source) else path_or_uri(self.source)


class Model(_Section):
    """The model to train, and its name in the registry."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$", description="name in the registry")
    task: TaskChoice = TaskChoice()
    network: NetworkChoice = NetworkChoice()
    start: Start | None = Field(
        None, description="source of the initial weights, or just NAME of a model, such as nuclei; null: random"
    )

    @field_validator("start", mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"from": f"{REGISTRY}{value.removeprefix(REGISTRY)}"} if isinstance(value, str) else value


class Shards(_Section):
    """When and how the decoded training images are divided into parts, so that no node needs all of them."""

    use: Literal["auto", "never", "always"] = Field("auto", description="auto: when they exceed above_gigabytes")
    above_gigabytes: float = Field(32.0, ge=0, description="maximum size of decoded training images on every node")
    megabytes: float = Field(128.0, gt=0, description="size of a shard; a larger image has its own shard")
    held: _Count = Field(
        8, description="approximate number of shards that a worker uses at a time; as many more are being copied"
    )


class Data(_Section):
    """The images, and how the model reads them."""

    root: _Place | tuple[_Place, ...] = Field(
        description="folder of the data set, s3://bucket/prefix or pvc://claim/path; or a list of several"
    )
    validation: _Place | tuple[_Place, ...] = Field((), description="further folders, all for validation")
    within: tuple[_Place, ...] | None = Field(
        None, description="only files in these folders are read, whatever manifests and links name; null: any folder"
    )
    axes: Literal["YX", "ZYX"] = Field("YX", description="spatial axes of the network's input")
    planes: int | None = Field(None, ge=2, description="planes of a z-stack that are the channels of a 2D network")
    balance: float = Field(0.0, ge=0, le=1, description="0 samples classes by frequency, 1 all equally often")
    columns: dict[str, str] = Field({}, description="names of the manifest's columns: {image: path, …}")
    where: dict[str, str] = Field({}, description="keep only rows whose column matches the pattern")
    channels: Literal["rgb", "grey"] | tuple[str, ...] = "grey"
    grey_as_rgb: bool = Field(True, description="repeat a single channel if the model expects three")
    pixel_size: float | None = Field(None, gt=0, description="micrometres per pixel that images are resampled to")
    agreement: float | None = Field(
        None, gt=0, le=1, description="score of annotators against each other; null: unknown"
    )
    scaling: IntensityScaling = IntensityScaling()
    folds: int | None = Field(
        None, ge=2, le=100, description="number of cross-validation folds; null: no cross-validation"
    )
    group: str | tuple[str, ...] | None = Field(
        None,
        description="column whose equal values stay together in folds and drawn splits, or several: the first that "
        "exists; null: group, if any",
    )
    stratify: str | None = Field(None, description="column to balance over the folds; null: the class, if any")
    draw_test: bool = Field(True, description="draw a split test from the training images if there is none")
    draw_validation: bool = Field(
        False, description="draw the validation images from groups of the split train, and leave the split val unused"
    )
    kind: str | None = Field(
        None, description="column with the kind of an image, for shares; where it is missing: the name of its folder"
    )
    shares: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {},
        description="relative number of crops by kind of image, as {PATTERN: NUMBER}; scores are then means over kinds",
    )
    shards: Shards = Shards()
    select: Selection = Field(
        EVERYTHING, description="selected part of each image: {channel: [DAPI], plane: max, …}; masks follow"
    )

    @model_validator(mode="after")
    def _something(self) -> Data:
        for field, what in (("root", "a folder or a URI"), ("channels", "the name of a channel, rgb or grey")):
            if getattr(self, field) == ():
                raise RecipeError(
                    f"expected {what}, found an empty list",
                    field=f"data.{field}",
                    hint="name at least one" if field == "root" else "name at least one, or remove the field for grey",
                )
        return self

    @model_validator(mode="after")
    def _one_series(self) -> Data:
        if self.select.series == EACH:
            raise RecipeError(
                "expected one series of each image, got each of them",
                field="data.select.series",
                hint="name a series: an image has one truth",
            )
        return self

    @model_validator(mode="after")
    def _planes_alone(self) -> Data:
        if self.select.joined:
            raise RecipeError(
                "expected planes one by one for training, got stitch, which joins the objects of answers",
                field="data.select.plane",
                hint="use each",
            )
        return self

    @property
    def roots(self) -> tuple[Path | str, ...]:
        """The folders of all data sets, and the URIs of remote ones."""
        return self.root if isinstance(self.root, tuple) else (self.root,)

    @property
    def group_column(self) -> str | None:
        """The single group column of all images; None if each image has the group of its manifest."""
        return self.group if isinstance(self.group, str) else None

    @property
    def groups(self) -> tuple[str, ...]:
        """The columns that may define groups."""
        return (self.group,) if isinstance(self.group, str) else self.group or ()

    @property
    def validation_roots(self) -> tuple[Path | str, ...]:
        """The folders that are for validation only."""
        return self.validation if isinstance(self.validation, tuple) else (self.validation,)

    @property
    def channel_names(self) -> tuple[str, ...]:
        """One name per input channel of the network."""
        return CHANNELS[self.channels] if isinstance(self.channels, str) else self.channels


class Training(_Section):
    """Duration, learning rate and engine."""

    epochs: _Count = 100
    minutes: float | None = Field(None, gt=0, description="wall-clock budget in minutes; the schedule ends with it")
    crops_per_epoch: _Count = 512
    crop_size: Annotated[int, Field(ge=8, le=4096)] | tuple[_Side, ...] = Field(
        256, description="side length of a crop in pixels, for all axes or for each; cells: of the window around a cell"
    )
    label_share: float = Field(1.0, gt=0, le=1, description="share of the training labels to use")
    batch_size: _Count = Field(16, description="crops per optimizer step, over all workers")
    accumulate: _Count = Field(1, description="backward passes per optimizer step, with all workers")
    learning_rate: float = Field(1e-3, gt=0, le=1)
    weight_decay: float = Field(1e-2, ge=0, le=1)
    warmup: _Share = Field(0.05, description="share of the training run spent warming up")
    gradient_clip: float = Field(1.0, gt=0)
    ema_decay: _Share = Field(0.998, description="decay of the running average of the weights; 0 turns it off")
    precision: Literal["fp32", "bf16", "auto"] = "auto"
    batch_norm: Literal["local", "synchronised"] = Field(
        "local", description="statistics over the crops of a pass on each worker, or on all workers together"
    )
    engine: Literal["torch", "deepspeed"] = "deepspeed"
    zero_stage: int = Field(1, ge=0, le=3, description="ZeRO stage of the deepspeed engine")
    metric: str | None = Field(None, description="validation score that chooses the best weights; null: the task's")
    validate_every: _Count = Field(1, description="epochs between validations")
    checkpoint_every: _Count | None = Field(None, description="steps between checkpoints within an epoch")
    early_stopping: _Count | None = Field(
        None, description="validations without improvement before stopping; null: never"
    )
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _a_step_per_epoch(self) -> Training:
        if self.crops_per_epoch < self.batch_size:
            raise RecipeError(
                f"expected at least one batch of training.batch_size = {self.batch_size} crops per epoch, "
                f"got {self.crops_per_epoch}",
                field="training.crops_per_epoch",
                hint=f"increase training.crops_per_epoch to {self.batch_size} or more, or decrease training.batch_size",
            )
        return self

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per epoch."""
        return self.crops_per_epoch // self.batch_size

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training run, unless the time budget or early stopping ends it."""
        return self.epochs * self.steps_per_epoch


class Halving(_Section):
    """When a search stops a trial: asynchronous successive halving (ASHA, arXiv:1810.05934)."""

    grace: _Count | None = Field(None, description="epochs until the first rung; null: until the first validation")
    reduction: float = Field(
        3.0, gt=1, le=100, description="one of this many trials continues; also the factor between rungs"
    )


class Population(_Section):
    """How a population of training runs learns from its best members (population-based training, arXiv:1711.09846)."""

    size: int = Field(4, ge=2, le=1000, description="number of members; later trials continue from one of them")
    interval: _Count = Field(1, description="epochs between comparisons with the other members")
    share: float = Field(0.25, gt=0, le=0.5, description="share of members that are replaced by the best ones")
    factor: float = Field(1.2, gt=1, le=10, description="factor that copied settings are multiplied or divided by")


class Tune(_Section):
    """The settings of a search. Not part of a run's identity: they choose recipes and change none."""

    space: dict[str, dict[str, Any]] = Field(
        min_length=1, description="field: {choice: […]}, {range: [low, high]} or {log_range: [low, high]}"
    )
    searcher: Literal["random", "optuna", "population"] = "optuna"
    trials: _Count | None = Field(20, description="number of recipes to try; null: as many as the hours allow")
    hours: float | None = Field(None, gt=0, description="time limit in hours; null: until all trials are done")
    concurrent: _Count = Field(1, description="concurrent trials, each with scale.workers workers")
    asha: Halving | None = Field(Halving(), description="when a trial is stopped early; null: never")
    population: Population = Population()
    confirm: int = Field(
        2, ge=0, le=20, description="seeds for the comparison of the best with the unchanged recipe; 0: no comparison"
    )
    refit: dict[str, Any] | None = Field(
        None, description="train the best again with these fields changed; null: use the best trial's weights"
    )
    seed: int = Field(0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _some_budget(self) -> Tune:
        if self.trials is None and self.hours is None:
            raise RecipeError("expected a budget in trials, hours or both, found none", field="tune.trials")
        return self

    @model_validator(mode="after")
    def _same_question(self) -> Tune:
        require_same_question(self.refit or ())
        return self

    @model_validator(mode="after")
    def _more_than_one_seed(self) -> Tune:
        if self.confirm == 1:
            raise RecipeError(
                "expected at least 2 seeds to measure the variance between seeds, got 1",
                field="tune.confirm",
                hint="use 2, or 0 for no comparison",
            )
        return self


class Recipe(_Section):
    """The complete description of one training run."""

    model: Model
    data: Data
    augmentation: Augmentation = Augmentation()
    training: Training = Training()
    scale: Scale = Scale()
    tune: Tune | None = Field(None, description="search of cytoray tune; cytoray train ignores it")

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
        """Maximum number of crops of one worker in a pass, which must fit into its memory."""
        return self.training.batch_size // (self.scale.workers * self.training.accumulate)

    def passes(self, workers: int) -> int:
        """Return the number of passes per step for a number of workers: more passes with fewer workers.

        So the batch size stays the same while workers are missing, and no worker needs more crops per pass; two passes
        instead of one if otherwise some would be empty.
        """
        batch = self.training.batch_size
        return min(-(-batch // (workers * self.crops_per_pass)), batch // workers)
