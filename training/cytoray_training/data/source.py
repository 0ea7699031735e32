"""The source of a worker's crops: the whole training split on its node, or shards of it."""

from __future__ import annotations

from cytoray_analysis.errors import RecipeError
from cytoray_services.datasets import remove_abandoned
from cytoray_services.in_use import use
from cytoray_training.data.cache import Progress, Source, cache_key, open_cache
from cytoray_training.data.shard_stream import ShardSchedule, ShardStream
from cytoray_training.data.shards import ShardSource, estimate_size, make_shards
from cytoray_training.engines.engine import rank, world_size
from cytoray_training.plan.plan import Plan

_MEGA, _GIGA = 10**6, 10**9


def open_source(plan: Plan, *, progress: Progress | None = None) -> Source:
    """Decode the training split if necessary, together with all other workers.

    Parameters
    ----------
    progress
        Called with (images done, images in total) while decoding.

    Raises
    ------
    DatasetError
        There is no training image, or one has no truth.
    ImageError
        An image cannot be read as the model needs it.
    RecipeError
        The images are divided into shards, and kinds have shares.
    """
    settings = plan.recipe.data.shards
    key = cache_key(plan.dataset_hash, plan.model_input, plan.chosen_task, plan.dataset.selection)
    folder = plan.home / "shards" / f"{key}-{settings.megabytes:g}"
    source = ShardSource(folder, plan.cache, plan.dataset, plan.model_input, plan.chosen_task)
    in_use = use(folder)
    large = settings.use == "always" or (
        settings.use == "auto" and estimate_size(source) > settings.above_gigabytes * _GIGA
    )
    if not large:
        in_use.close()
        return open_cache(
            plan.cache, plan.dataset, plan.dataset_hash, plan.model_input, plan.chosen_task, progress=progress
        )
    if plan.recipe.data.shares:
        raise RecipeError(
            "expected images that fit on every node for data.shares, got more than data.shards.above_gigabytes",
            field="data.shares",
            hint="raise data.shards.above_gigabytes, or remove data.shares",
        )
    remove_abandoned(plan.cache)
    index = make_shards(source, int(settings.megabytes * _MEGA), worker=rank(), workers=world_size(), progress=progress)
    training = plan.recipe.training
    schedule = ShardSchedule(
        weights=index.weights(plan.recipe.data.balance),
        bytes=tuple(shard.bytes for shard in index.shards),
        examples=index.examples,
        world=world_size(),
        held=settings.held,
        seed=training.seed,
        steps_per_epoch=training.steps_per_epoch,
        batch=training.batch_size,
    )
    return ShardStream(index, schedule, rank(), plan.cache, in_use)
