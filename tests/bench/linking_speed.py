"""Objects a second that are measured, judged and linked on one core, and how the time grows with frames × cells."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import time

import numpy as np
import torch
from measure import Ratio, report

from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.networks.overlap import overlap_then_distance
from cytoray_analysis.networks.pair_network import PairNetwork
from cytoray_analysis.tracking.candidates import FEATURES
from cytoray_analysis.tracking.linker import PARAMETERS
from cytoray_analysis.tracking.linking import link_movie

ROUNDS = 5
WANTED = 5_000.0
STEEPEST = 1.05
# Frames and cells along a side of the field; the field has the same density of cells in all.
SIZES = ((16, 8), (16, 16), (64, 8), (32, 20), (16, 32), (64, 16), (48, 32))
PITCH = 24


def wandering_cells(frames: int, side: int) -> tuple[Image, Image]:
    """Disks that wander about the places of a grid: 576 pixels of field a cell, about as dense as nuclei lie."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side].reshape(2, -1) * PITCH + PITCH // 2
    radius = rng.integers(5, 9, side * side)
    masks = np.zeros((frames, side * PITCH, side * PITCH), np.uint16)
    walk = np.zeros((side * side, 2))
    for mask in masks:
        walk = np.clip(walk + rng.normal(0.0, 1.5, walk.shape), -3, 3)
        for label in rng.permutation(side * side):
            y, x = rows[label] + round(walk[label, 0]), columns[label] + round(walk[label, 1])
            r = int(radius[label])
            dy, dx = np.mgrid[-r : r + 1, -r : r + 1]
            mask[y - r : y + r + 1, x - r : x + r + 1][dy**2 + dx**2 <= r * r] = label + 1
    pixels = (100 + 50 * (masks > 0) + rng.integers(0, 30, masks.shape)).astype(np.uint16)
    return image_from_array(pixels, "TYX"), image_from_array(masks, "TYX")


def seconds(movie: Image, masks: Image, network: PairNetwork) -> float:
    def judge(features: np.ndarray) -> np.ndarray:
        # The network's time is what counts; an untrained one would let no link stand.
        with torch.inference_mode():
            network(torch.from_numpy(features)[None])
        return overlap_then_distance(features)

    start = time.process_time()
    link_movie(movie, masks, judge, {name: values[0] for name, values in PARAMETERS.items()})
    return time.process_time() - start


def main() -> None:
    torch.set_num_threads(1)
    network = PairNetwork(inputs=FEATURES, outputs=2).eval()
    seconds(*wandering_cells(4, 4), network)  # compiles
    objects, taken = [], []
    for frames, side in SIZES:
        movie, masks = wandering_cells(frames, side)
        times = [seconds(movie, masks, network) for _ in range(ROUNDS)]
        objects.append(frames * side * side)
        taken.append(times)
        rate = objects[-1] / min(times)
        print(f"  {frames} frames of {side * side} cells: {rate:.0f} objects/s", file=sys.stderr, flush=True)
    exponent = float(np.polyfit(np.log(objects), np.log([min(times) for times in taken]), 1)[0])
    print(f"  exponent: {exponent:.3f}", file=sys.stderr, flush=True)
    rates = tuple(objects[-1] / each for each in taken[-1])
    report(
        [
            Ratio("linking on one core over 5,000 objects a second", rates, (WANTED,), "objects/s", 1.0),
            Ratio("exponent of linking's seconds, largest wanted over fitted", (STEEPEST,), (exponent,), "", 1.0),
        ]
    )


if __name__ == "__main__":
    main()
