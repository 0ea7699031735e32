"""What the analysis of a canary measures of two versions in one replica: the same bundle, and a slower one.

``python tests/bench/canary_batches.py --seconds 20 --callers 16 --side 64``: real models in this process; version and
lane are chosen as a gateway does. The slower version waits, in each pass, 0.7 times as long as the pass takes.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import random
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.errors import CytorayError
from cytoray_analysis.networks import build_network
from cytoray_analysis.predictor import ModelIdentity
from cytoray_services.rollouts.canary_analysis import CanaryAnalysis, Outcome
from cytoray_services.rollouts.rollout import STEPS, Rollout, lane, takes
from cytoray_serving.gateway.dispatch import own_seconds
from cytoray_serving.messages import Answer, Question
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.replica.replica import LoadedModel

NETWORK = NetworkChoice(name="unet", arguments={"inputs": 1, "outputs": 3, "widths": [8, 16, 32]})
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


class Slower(LoadedModel):
    """Takes 1.7 times as long for each pass of the network."""

    def _predict(self, batch: Sequence[Any]) -> list[Any]:
        begun = time.perf_counter()
        found = super()._predict(batch)
        extra = 0.7 * (time.perf_counter() - begun)
        time.sleep(extra)
        for one in found:
            assert not isinstance(one, CytorayError)
            one.prediction.seconds["network"] += extra / len(batch)
        return found


async def measure(
    name: str, models: dict[str, LoadedModel], share: float, seconds: float, callers: int, body: bytes
) -> None:
    canary = Rollout("k", "m", "champion", "2", (share,), "x", BEGAN, BEGAN, beside="1")
    analysis, chance, verdict = CanaryAnalysis(canary), random.Random(0), None
    seen: dict[tuple[str, bool], list[tuple[float, int]]] = {}
    end, asked = time.monotonic() + seconds, 0

    async def call() -> None:
        nonlocal asked, verdict
        while time.monotonic() < end:
            key = chance.random()
            version, number = "2" if takes(canary, key) else "1", lane(canary, key)
            answer = await models[version].answer(Question(image=body, accept="image/tiff", lane=number))
            assert isinstance(answer, Answer)
            asked += 1
            taken = own_seconds(answer)
            seen.setdefault((version, number > 0), []).append((taken, answer.batch))
            timed = number > 0 and answer.place == 0
            analysis.observe(version, Outcome(False, taken, answer.megapixels, timed=timed, batch=answer.batch))
            found = analysis.verdict(canary, BEGAN + timedelta(seconds=1))
            if verdict is None and found.what == "withdraw":
                verdict = f"{found.reason}, after {asked} requests"

    await asyncio.gather(*(call() for _ in range(callers)))
    print(f"{name}, {share:.0%}: {verdict or 'stays'}")
    medians = {}
    for (version, alone), taken in sorted(seen.items()):
        times, batches = zip(*taken, strict=True)
        medians[version, alone] = np.median(times)
        print(
            f"  version {version}, {'compared' if alone else 'the rest'}: {len(times)} answers, median "
            f"{1e3 * np.median(times):.2f} ms, 95 % {1e3 * np.quantile(times, 0.95):.2f} ms, "
            f"{np.mean(batches):.1f} images a batch"
        )
    ratio = medians["2", True] / medians["1", True]
    rest = medians["1", False] if ("1", False) in medians else float("nan")
    print(
        f"  canary / other, of those compared: {ratio:.2f}; with the rest of the other: {medians['2', True] / rest:.2f}"
    )


def untrained(folder: Path) -> Bundle:
    """Write a bundle of a small network."""
    spec = BundleSpec(name="untrained", task=TaskChoice(), input=ModelInput(channels=("grey",)), network=NETWORK)
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    return write_bundle(folder / "b", spec, weights, test_input=np.zeros((1, 64, 64), np.float32), card="")


def picture(side: int) -> bytes:
    """Return a file of noise."""
    image = io.BytesIO()
    tifffile.imwrite(image, np.random.default_rng(0).integers(0, 4000, (side, side), dtype=np.uint16))
    return image.getvalue()


def main(seconds: int, callers: int, side: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = untrained(Path(folder))
        for name, kind in (("the same bundle", LoadedModel), ("1.7 times as slow", Slower)):
            for share in STEPS:
                models = {
                    version: of(bundle, ModelIdentity("m", version, bundle.digest), ReplicaOptions())
                    for version, of in (("1", LoadedModel), ("2", kind))
                }
                asyncio.run(measure(name, models, share, seconds, callers, picture(side)))
                for one in models.values():
                    one.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, default in (("seconds", 20), ("callers", 16), ("side", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    main(**vars(parser.parse_args()))
