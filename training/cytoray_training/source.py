"""Where a worker's crops come from: the whole training split on its node, or shards of it."""

from __future__ import annotations

from cytoray_services.datasets import remove_abandoned
from cytoray_services.in_use import use
from cytoray_training.cache import Progress, Source, cache_key, open_cache
from cytoray_training.engine import rank, world_size
from cytoray_training.plan import Plan
from cytoray_training.shard_stream import Deal, ShardStream
from cytoray_training.shards import Split, estimate_size, make_shards

_MEGA, _GIGA = 10**6, 10**9


def open_source(plan: Plan, *, progress: Progress | None = None) -> Source:
    """Decode the training split where that has not been done yet, together with all other workers.

    Parameters
    ----------
    progress
        Called with (images done, images in all) while decoding.

    Raises
    ------
    DatasetError
        There is no training image, or one has no truth.
    ImageError
        An image cannot be read as the model sees it.
    """
    settings = plan.recipe.data.shards
    key = cache_key(plan.dataset_hash, plan.model_input, plan.chosen_task, plan.dataset.selection)
    folder = plan.home / "shards" / f"{key}-{settings.megabytes:g}"
    split = Split(folder, plan.cache, plan.dataset, plan.model_input, plan.chosen_task)
    in_use = use(folder)
    large = settings.use == "always" or (
        settings.use == "auto" and estimate_size(split) > settings.above_gigabytes * _GIGA
    )
    if not large:
        in_use.close()
        return open_cache(
            plan.cache, plan.dataset, plan.dataset_hash, plan.model_input, plan.chosen_task, progress=progress
        )
    remove_abandoned(plan.cache)
    index = make_shards(split, int(settings.megabytes * _MEGA), worker=rank(), workers=world_size(), progress=progress)
    training = plan.recipe.training
    deal = Deal(
        weights=index.weights(plan.recipe.data.balance),
        bytes=tuple(shard.bytes for shard in index.shards),
        examples=index.examples,
        world=world_size(),
        held=settings.held,
        seed=training.seed,
        steps_per_epoch=training.steps_per_epoch,
        batch=training.batch_size,
    )
    return ShardStream(index, deal, rank(), plan.cache, in_use)
