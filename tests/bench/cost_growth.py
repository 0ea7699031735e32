"""How seconds and peak memory grow with pixels, for labels and predicted stains, and with voxels: fitted exponents."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cytoray_analysis.bundle import BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.images import Image, image_from_array
from cytoray_analysis.networks import build_network
from cytoray_analysis.predictor import Predictor

ROUNDS = 3
PLANES = ((1024, 1024), (1448, 1448), (2048, 2048), (2896, 2896), (4096, 4096))
VOLUMES = ((32, 192, 192), (32, 256, 256), (64, 256, 256), (64, 384, 384), (64, 512, 512))


def predictor_of(folder: Path, task: str, dimensions: int, outputs: int) -> Predictor:
    """Write a bundle with random weights."""
    torch.manual_seed(0)
    widths = [32, 64, 128, 256, 256] if dimensions == 2 else [32, 64, 128]
    arguments = {"dimensions": dimensions, "inputs": 1, "outputs": outputs, "widths": widths}
    spec = BundleSpec(
        name="random",
        task=TaskChoice(name=task, arguments={"dimensions": dimensions}),
        input=ModelInput(axes="CYX" if dimensions == 2 else "CZYX"),
        network=NetworkChoice(name="unet", arguments=arguments),
        decode={"reach": 16.0} if task == "segmentation" else {},
    )
    weights = build_network("unet", arguments).state_dict()
    blank = np.zeros((1, *(64,) * dimensions), np.float32)
    return Predictor(write_bundle(folder / f"{task}{dimensions}", spec, weights, test_input=blank, card="#\n"))


def exponent(predictor: Predictor, shapes: tuple[tuple[int, ...], ...]) -> tuple[float, list[float]]:
    """Fit seconds = a · size ** b over the shapes, and return b and the medians."""
    images = [noise(shape) for shape in shapes]
    predictor.predict(images[0])
    taken: list[list[float]] = [[] for _ in shapes]
    for _ in range(ROUNDS):
        for place, image in enumerate(images):
            start = time.perf_counter()
            predictor.predict(image)
            taken[place].append(time.perf_counter() - start)
    medians = [statistics.median(times) for times in taken]
    return growth(shapes, medians), medians


def growth(shapes: tuple[tuple[int, ...], ...], values: list[float]) -> float:
    """Return the exponent b of value = a · size ** b."""
    sizes = [float(np.prod(shape)) for shape in shapes]
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def noise(shape: tuple[int, ...]) -> Image:
    """Return an image of random pixels."""
    return image_from_array(np.random.default_rng(0).integers(0, 4000, shape).astype(np.uint16), "ZYX"[-len(shape) :])


def peak_megabytes(task: str, dimensions: int, outputs: int, shape: tuple[int, ...]) -> float:
    """Predict one image in a process of its own, and return that process's peak resident memory."""
    question = json.dumps([task, dimensions, outputs, shape])
    done = subprocess.run([sys.executable, __file__, question], capture_output=True, text=True, check=True)
    return float(done.stdout)


def answer_peak(question: str) -> None:
    """Be that process."""
    task, dimensions, outputs, shape = json.loads(question)
    with tempfile.TemporaryDirectory(prefix="cytoray-") as scratch:
        predictor_of(Path(scratch), task, dimensions, outputs).predict(noise(tuple(shape)))
    # Of this program alone: getrusage would count what the parent had when it was forked.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")))


def main() -> None:
    if len(sys.argv) > 1:
        answer_peak(sys.argv[1])
        return
    with tempfile.TemporaryDirectory(prefix="cytoray-") as scratch:
        for name, task, dimensions, outputs, shapes in (
            ("segmentation, pixels", "segmentation", 2, 3, PLANES),
            ("label-free prediction, pixels", "label_free", 2, 1, PLANES),
            ("segmentation, voxels", "segmentation", 3, 4, VOLUMES),
        ):
            power, medians = exponent(predictor_of(Path(scratch), task, dimensions, outputs), shapes)
            seconds = ", ".join(f"{value:.2f}" for value in medians)
            print(f"{name}: exponent {power:.3f} (wanted at most 1.05); seconds {seconds}", flush=True)
            peaks = [peak_megabytes(task, dimensions, outputs, shape) for shape in shapes]
            megabytes = ", ".join(f"{value:.0f}" for value in peaks)
            print(f"  peak memory: exponent {growth(shapes, peaks):.3f}; MB {megabytes}", flush=True)


if __name__ == "__main__":
    main()
