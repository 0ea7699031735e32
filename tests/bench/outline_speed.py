"""What full-resolution outlines cost: this checkout against one from before them, from bytes to label bytes.

python tests/bench/outline_speed.py OTHER [MODEL] [--rounds 9]

OTHER is the folder of a checkout from before decision 0011, such as one of ``git worktree add``. It runs the weights of
MODEL (`nuclei` by default) with the last layer that it had, depth to space, so that both decode about the same objects.
Both processes read, predict and write one made image of a megapixel in turn.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import yaml
from measure import Ratio, alternate, report
from safetensors.torch import load_file

from cytoray_analysis.bundle import SPEC, WEIGHTS, Bundle, write_bundle
from cytoray_analysis.images import image_from_array, read_image, write_labels
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import make_segmentation
from cytoray_services.registry import load_bundle
from cytoray_services.settings import load_settings

ROOMS = ("analysis", "services", "training", "serving")
SIDE = 1024
PIXELS_OF_A_CELL = 4


def with_depth_to_space(bundle: Bundle, folder: Path) -> Bundle:
    """Give a model the last layer of before: every pixel of a cell gets the same weights, and nothing is sharpened."""
    weights = {name: tensor.float() for name, tensor in load_file(bundle.folder / WEIGHTS).items()}
    del weights["sharpen.weight"]
    for name in ("head.weight", "head.bias"):
        weights[name] = weights[name].repeat_interleave(PIXELS_OF_A_CELL, dim=0)
    arguments = {name: value for name, value in bundle.spec.network.arguments.items() if name != "finish"}
    network = bundle.spec.network.model_copy(update={"arguments": arguments})
    spec = bundle.spec.model_copy(update={"network": network})
    old = write_bundle(folder, spec, weights, test_input=np.zeros((3, 64, 64), np.float32), card="")
    written = yaml.safe_load((folder / SPEC).read_text(encoding="utf-8"))
    del written["input"]["diameter"], written["task"]["arguments"]["dice"]  # which that checkout does not know
    (folder / SPEC).write_text(yaml.safe_dump(written), encoding="utf-8")
    return old


def work(bundle: Path, image: Path) -> None:
    """Answer each line of the standard input with the seconds of one answer and its number of objects."""
    predictor = Predictor(Bundle.load(bundle))
    for line in sys.stdin:
        start = time.perf_counter()
        pixels = image_from_array(read_image(image).select("YX").read(), "YX")
        labels = predictor.predict(pixels).answer
        write_labels(Path(line.strip()), labels)
        print(time.perf_counter() - start, int(labels.max()), flush=True)


def asked(stack: ExitStack, checkout: Path, bundle: Path, image: Path, answer: Path) -> Callable[[], float]:
    """Start the process of a checkout; return what measures one answer, in megapixels per second."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(str(checkout / room) for room in ROOMS)}
    command = [sys.executable, __file__, "--work", str(bundle), str(image)]
    process = stack.enter_context(
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    assert process.stdin is not None
    assert process.stdout is not None
    questions, answers = process.stdin, process.stdout

    def once() -> float:
        print(answer, file=questions, flush=True)
        seconds, objects = answers.readline().split()
        print(f"  {checkout.name}: {objects} objects", file=sys.stderr)
        return SIDE * SIDE / 1e6 / float(seconds)

    once()
    return once


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("other", type=Path)
    parser.add_argument("model", nargs="?", default="nuclei")
    parser.add_argument("--rounds", type=int, default=9)
    words = parser.parse_args()
    here, shipped = Path(__file__).resolve().parents[2], load_bundle(words.model, load_settings())[0]
    with tempfile.TemporaryDirectory(prefix="cytoray-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        old = with_depth_to_space(shipped, folder / "old")
        image = make_segmentation(folder / "data", images=1, size=SIDE).items[0].image
        new, before = alternate(
            words.rounds,
            asked(stack, here, shipped.folder, image, folder / "new.tif"),
            asked(stack, words.other.resolve(), old.folder, image, folder / "old.tif"),
        )
    report([Ratio("outlines at full resolution over before, bytes to label bytes", new, before, "MP/s", target=0.9)])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
