"""Megapixels a second: bf16 against fp32, in inference and in training, and decoding on one core."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import Ratio, alternate, report

from cytoray_analysis.bundle import Bundle, BundleSpec, ModelInput, NetworkChoice, TaskChoice, write_bundle
from cytoray_analysis.devices import Precision
from cytoray_analysis.images import image_from_array, read_image, read_labels
from cytoray_analysis.networks import build_network
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks import InstanceSegmentation
from cytoray_services.datasets import make_segmentation

SIDE = 1024
ROUNDS = 7
NETWORK = NetworkChoice(name="unet", arguments={"inputs": 3, "outputs": 3, "widths": [32, 64, 128, 256, 256]})


def untrained_bundle(folder: Path) -> Bundle:
    """The network of the shipped recipe; its speed does not depend on its weights."""
    spec = BundleSpec(
        name="untrained",
        task=TaskChoice(),
        input=ModelInput(channels=("red", "green", "blue"), grey_as_rgb=True),
        network=NETWORK,
    )
    weights = build_network(NETWORK.name, NETWORK.arguments).state_dict()
    return write_bundle(folder, spec, weights, test_input=np.zeros((3, 64, 64), np.float32), card="")


def rate(work: Callable[[], object], megapixels: float) -> Callable[[], float]:
    def once() -> float:
        start = time.perf_counter()
        work()
        return megapixels / (time.perf_counter() - start)

    work()
    return once


def training_step(precision: Precision) -> Callable[[], None]:
    network = build_network(NETWORK.name, NETWORK.arguments)
    network = network.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    images = torch.rand((8, 3, 256, 256)).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            outputs = network(images)
        outputs.float().square().mean().backward()
        network.zero_grad(set_to_none=True)

    return step


def main() -> None:
    megapixels = SIDE * SIDE / 1e6
    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        bundle = untrained_bundle(Path(folder) / "bundle")
        dataset = make_segmentation(Path(folder) / "data", images=1, size=SIDE)
        item = dataset.items[0]
        image = image_from_array(read_image(item.image).select("YX").read(), "YX")
        truth = torch.from_numpy(read_labels(Path(item.truth or "")).astype(np.int64))[None]
        half, full = Predictor(bundle, precision="bf16"), Predictor(bundle, precision="fp32")
        inference = alternate(
            ROUNDS, rate(lambda: half.outputs(image), megapixels), rate(lambda: full.outputs(image), megapixels)
        )
        training = alternate(
            ROUNDS, rate(training_step("bf16"), 8 * 0.065536), rate(training_step("fp32"), 8 * 0.065536)
        )
        # What the network would put out if it had learnt the truth by heart: every pixel of every object votes.
        task = InstanceSegmentation()
        target = task.encode(truth)
        outputs = torch.cat(((target[:, :1] * 2 - 1) * 9, target[:, 3:] / task.offset_unit), dim=1)[0].numpy()
        parameters = task.output.defaults()
        decoding = alternate(
            ROUNDS,
            rate(lambda: task.decode(outputs, parameters), megapixels),
            rate(lambda: half.outputs(image), megapixels),
        )
    report(
        [
            Ratio("bf16 over fp32, inference, 1 MP", inference[0], inference[1], "MP/s"),
            Ratio("bf16 over fp32, forward and backward", training[0], training[1], "MP/s"),
            Ratio("decoding on one core over the network on all, 1 MP", decoding[0], decoding[1], "MP/s"),
        ]
    )


if __name__ == "__main__":
    main()
