"""How many images a second one replica answers, from the bytes of a file to the bytes of the labels; without Ray.

python tests/bench/replica_throughput.py BUNDLE [--side 1024] [--images 256] [--together 8] [--replicas 1,8]

Several replicas, each a process of its own, share the device: what they answer together is given beside one of them.

The images are made up: cells of the synthetic generator, deflated TIFF. What the network alone does with a batch is
measured beside it, so that what is left to gain shows.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import multiprocessing
import statistics
import time
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.predictor import ModelIdentity, Predictor
from cytoray_serving.messages import Question
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.replica.replica import LoadedModel

DIFFERENT = 16  # images, asked about in turn
CELLS_PER_MEGAPIXEL = 400
ROUNDS = 3


def picture(side: int, seed: int) -> NDArray[np.uint8]:
    """Return bright discs of about 22 pixels on a noisy ground, (Y, X) uint8."""
    chance = np.random.default_rng(seed)
    image = chance.normal(20, 4, (side, side)).astype(np.float32)
    y, x = np.mgrid[-16:17, -16:17]
    for top, left in chance.integers(0, side - 33, (CELLS_PER_MEGAPIXEL * side * side // 2**20, 2)):
        radius = chance.uniform(7, 13)
        image[top : top + 33, left : left + 33] += chance.uniform(60, 150) * (x**2 + y**2 < radius**2)
    return np.clip(image, 0, 255).astype(np.uint8)


def tiff(image: NDArray[np.uint8]) -> bytes:
    """Return a deflated TIFF."""
    file = io.BytesIO()
    tifffile.imwrite(file, image, compression="zlib")
    return file.getvalue()


async def answered(model: LoadedModel, bodies: list[bytes], images: int, together: int, side: int) -> dict[str, Any]:
    """Ask about `images` images, `together` at a time; return images a second and the mean seconds of each stage."""
    waiting = asyncio.Semaphore(together)
    stages: dict[str, list[float]] = {}
    objects = 0

    async def ask(number: int) -> None:
        nonlocal objects
        async with waiting:
            answer = await model.answer(Question(bodies[number % len(bodies)], megapixels=side * side / 1e6))
        if isinstance(answer, CytorayError):
            raise answer
        objects += answer.objects
        for name, seconds in answer.seconds.items():
            stages.setdefault(name, []).append(seconds)

    began = time.perf_counter()
    await asyncio.gather(*(ask(number) for number in range(images)))
    rate = images / (time.perf_counter() - began)
    return {
        "images_per_second": rate,
        "objects": objects,
        "stages": {name: round(statistics.fmean(values), 4) for name, values in stages.items()},
    }


def network_rate(predictor: Predictor, side: int, batch: int) -> float:
    """Return megapixel images a second of the network alone, its input on the device already."""
    runner = predictor.runner
    channels = len(predictor.bundle.spec.input.channels)
    images = torch.rand(batch, channels, side, side, device=runner.device, dtype=runner.type)
    images = images.contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(6):
            began = time.perf_counter()
            runner.network(images)
            if runner.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    return batch / statistics.median(times[1:])


def replica(options: argparse.Namespace, bodies: list[bytes], start: Barrier, told: SimpleQueue[Any]) -> None:
    """Be one replica: answer all images in each round, beginning when all others do."""
    torch.set_num_threads(options.threads)
    bundle = Bundle.load(options.bundle)
    run = ReplicaOptions(device=options.device, threads=options.threads, batch_pixels=options.batch_pixels)
    model = LoadedModel(bundle, ModelIdentity(bundle.spec.name, "1", bundle.digest), run)

    async def rounds() -> list[dict[str, Any]]:
        taken = []
        for number in range(ROUNDS + 1):
            start.wait()
            images = options.images if number else options.together  # the first one warms up
            began = time.perf_counter()
            taken.append(await answered(model, bodies, images, options.together, options.side))
            taken[-1] |= {"seconds": time.perf_counter() - began}
        return taken[1:]

    told.put(asyncio.run(rounds()))


def together(options: argparse.Namespace, bodies: list[bytes], replicas: int) -> tuple[list[float], dict[str, Any]]:
    """Return images a second of all replicas in each round, and what one of them said of its median round."""
    context = multiprocessing.get_context("spawn")
    start, told = context.Barrier(replicas), context.SimpleQueue()
    processes = [context.Process(target=replica, args=(options, bodies, start, told)) for _ in range(replicas)]
    for process in processes:
        process.start()
    said = [told.get() for _ in processes]
    for process in processes:
        process.join()
    slowest = [max(one[number]["seconds"] for one in said) for number in range(ROUNDS)]
    rates = sorted(replicas * options.images / seconds for seconds in slowest)
    return rates, sorted(said[0], key=lambda one: one["seconds"])[ROUNDS // 2]


def main() -> None:
    """Print one JSON object for each number of replicas."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--images", type=int, default=256, help="of each replica in each round")
    parser.add_argument("--together", type=int, default=8, help="questions that wait at each replica")
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-pixels", type=int)
    parser.add_argument("--replicas", default="1", help="such as 1,4,8")
    options = parser.parse_args()
    bodies = [tiff(picture(options.side, seed)) for seed in range(DIFFERENT)]
    predictor = Predictor(Bundle.load(options.bundle), device=options.device)
    facts = {
        "device": str(predictor.device),
        "precision": predictor.precision,
        "side": options.side,
        "kilobytes": round(statistics.fmean(map(len, bodies)) / 1e3),
        "network_alone": round(network_rate(predictor, options.side, 16), 1),
    }
    del predictor
    for replicas in map(int, options.replicas.split(",")):
        rates, one = together(options, bodies, replicas)
        answers = {"replicas": replicas, "images_per_second": [round(rate, 1) for rate in rates]}
        print(json.dumps(facts | answers | {"stages": one["stages"]}), flush=True)


if __name__ == "__main__":
    main()
