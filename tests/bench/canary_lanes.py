"""What lanes cost: images a second of processor time of a replica with a canary, in lanes or not, and without one.

``OMP_WAIT_POLICY=passive python tests/bench/canary_lanes.py --rounds 7 --images 200 --callers 16 --side 64``: real
models in this process, both versions the same bundle; the kinds of round take turns, and the ratios are those of their
medians. The time is that of the processor, which other work on the machine does not use up: on a CPU it is what bounds
a replica. It says nothing about an accelerator.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from canary_batches import BEGAN, picture, untrained

from cytoray_analysis.predictor import ModelIdentity
from cytoray_services.rollouts.rollout import STEPS, Rollout, lane, takes
from cytoray_serving.messages import Answer, Question
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.replica.replica import LoadedModel

RUNNING = Rollout("k", "m", "champion", "2", STEPS, "x", BEGAN, BEGAN, beside="1")


async def answered(
    models: dict[str, LoadedModel], canary: Rollout, body: bytes, *, lanes: bool, images: int, callers: int
) -> tuple[float, float]:
    """Return images a second of processor time, and images a batch."""
    chance = random.Random(0)
    keys, passes, begun = iter([chance.random() for _ in range(images)]), 0.0, time.process_time()

    async def call() -> None:
        nonlocal passes
        for key in keys:
            question = Question(image=body, accept="image/tiff", lane=lane(canary, key) if lanes else 0)
            answer = await models["2" if takes(canary, key) else "1"].answer(question)
            assert isinstance(answer, Answer)
            passes += 1 / answer.batch

    await asyncio.gather(*(call() for _ in range(callers)))
    return images / (time.process_time() - begun), images / passes


async def measure(models: dict[str, LoadedModel], body: bytes, words: argparse.Namespace) -> None:
    kinds = {"no canary": (replace(RUNNING, state="stopped"), False)}
    for step, share in enumerate(STEPS):
        for lanes in (False, True):
            name = f"canary at {share:.0%}, {'lanes' if lanes else 'one lane'}"
            kinds[name] = (replace(RUNNING, step=step), lanes)
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for number in range(words.rounds + 1):
        for name, (canary, lanes) in kinds.items():
            images = words.images if number else words.callers  # the first round warms up
            rate = await answered(models, canary, body, lanes=lanes, images=images, callers=words.callers)
            if number:
                rates[name].append(rate)
    medians = {name: statistics.median(rate for rate, _ in found) for name, found in rates.items()}
    for name, found in rates.items():
        line = f"{name:24s} {medians[name]:7.1f} images/s ({min(found)[0]:.1f} to {max(found)[0]:.1f}), "
        line += f"{statistics.median(batch for _, batch in found):.1f} images a batch"
        print(f"{line}; of no canary {medians[name] / medians['no canary']:.2f}")
    for share in STEPS:
        with_lanes, without = (medians[f"canary at {share:.0%}, {kind}"] for kind in ("lanes", "one lane"))
        print(f"lanes / one lane at {share:.0%}: {with_lanes / without:.2f}")


def main(words: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = untrained(Path(folder))
        models = {
            version: LoadedModel(bundle, ModelIdentity("m", version, bundle.digest), ReplicaOptions())
            for version in ("1", "2")
        }
        asyncio.run(measure(models, picture(words.side), words))
        for one in models.values():
            one.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option, default in (("rounds", 7), ("images", 200), ("callers", 16), ("side", 64)):
        parser.add_argument(f"--{option}", type=int, default=default)
    main(parser.parse_args())
