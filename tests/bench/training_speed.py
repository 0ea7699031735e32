"""Crops a second: Ray Train with DeepSpeed against a bare PyTorch loop, and two workers against one.

The bare loop draws the same crops from the same cache, without a thread ahead of it, and trains the same network with
the same loss, optimizer and precision, on all cores of the machine. Validation and start-up are in neither rate.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import torch
from measure import Ratio, alternate, report

from cytoray_analysis.networks import build_network
from cytoray_services.datasets import make_segmentation
from cytoray_services.settings import load_settings
from cytoray_training.data.batches import Sampler
from cytoray_training.data.cache import open_cache
from cytoray_training.engines.adamw import build_optimizer
from cytoray_training.engines.engine import autocast_dtype
from cytoray_training.plan.plan import Plan
from cytoray_training.plan.planning import make_plan
from cytoray_training.recipe import Recipe, load_recipe
from cytoray_training.run.launch import launch

RECIPE = Path(__file__).parents[2] / "training" / "recipes" / "nuclei.yaml"
CROPS = 320
EPOCHS = 3
ROUNDS = 3


def recipe_for(data: Path, workers: int) -> Recipe:
    settings = {
        "data.root": data,
        "training.epochs": EPOCHS,
        "training.crops_per_epoch": CROPS,
        "training.validate_every": EPOCHS,
        "training.minutes": "null",
        "training.checkpoint_every": "null",
        "scale.workers": workers,
    }
    return load_recipe(RECIPE, [f"{field}={value}" for field, value in settings.items()])


def ray_rate(plan: Plan, folder: Path) -> float:
    """Train through the whole stack; the median rate of the epochs after the first."""
    rates: list[float] = []

    def listen(facts: Mapping[str, Any]) -> None:
        if facts["stage"] == "epoch" and facts["epoch"] > 0:
            rates.append(float(facts["images_per_second"]))

    launch(plan, folder, listen=listen)
    return statistics.median(rates)


def bare_rate(plan: Plan) -> float:
    """Train in a plain loop in this process."""
    torch.set_num_threads(os.cpu_count() or 1)
    training = plan.recipe.training
    cache = open_cache(plan.cache, plan.dataset, plan.dataset_hash, plan.model_input, plan.chosen_task)
    sampler = Sampler(
        source=cache,
        examples=plan.examples,
        crop=plan.crop,
        batch=training.batch_size,
        accumulate=1,
        seed=0,
        augmentation=plan.recipe.augmentation,
        encode=plan.task.encode,
    )
    device = torch.device("cpu")
    network = build_network(plan.network.name, plan.network.arguments)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(network, training)
    precision = autocast_dtype(training.precision, device)
    start = 0.0
    steps = CROPS // training.batch_size
    for step in range(steps + 3):
        if step == 3:  # the first steps choose kernels and fill caches
            start = time.perf_counter()
        for images, target in sampler.cut(sampler.drawn(step)):
            with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
                outputs = network(images)
            plan.task.loss(outputs.float(), target).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    return steps * training.batch_size / (time.perf_counter() - start)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        root = Path(folder)
        make_segmentation(root / "data", images=64, size=512)
        settings = load_settings({"CYTORAY_HOME": str(root / "home")})
        two = make_plan(recipe_for(root / "data", 2), settings)
        one = make_plan(recipe_for(root / "data", 1), settings)
        runs = (root / "home" / "runs" / str(number) for number in range(100))
        with ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False):
            stacked, bare, single = alternate(
                ROUNDS,
                lambda: ray_rate(two, next(runs)),
                lambda: bare_rate(two),
                lambda: ray_rate(one, next(runs)),
            )
    report(
        [
            Ratio("Ray Train + DeepSpeed, two workers, over a bare PyTorch loop", stacked, bare, "crops/s", 0.90),
            Ratio("two workers over one (one thread each)", stacked, single, "crops/s"),
        ]
    )


if __name__ == "__main__":
    main()
