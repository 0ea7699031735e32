"""Images a second through the endpoint against the bare predictor in one process, one megapixel each.

A TIFF goes in and a label TIFF comes out, asked by a second process over a few connections; the predictor in process
gets the decoded image and encodes nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from inference_speed import SIDE, untrained_bundle
from measure import Ratio, alternate, report

from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.predictor import Predictor
from cytoray_services.datasets import make_segmentation
from cytoray_serving.client import Client

ROUNDS = 7
CONNECTIONS = 3
IMAGES = 12


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Run ``cytoray serve`` for as long as the block runs, and give its address."""
    command = [sys.executable, "-c", "from cytoray_services.commands.root import main; main()"]
    command += ["serve", str(bundle), "--insecure-local", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            started = json.loads((process.stdout and process.stdout.readline()) or "{}")
            if "url" not in started:
                sys.exit(f"the service did not start: {started}")
            yield started["url"]
        finally:
            process.terminate()


def ask(url: str, body: bytes) -> float:
    """Ask for the same image over a few connections, and give the images a second."""
    with Client(url) as client, ThreadPoolExecutor(CONNECTIONS) as pool:

        def one(_: int) -> int:
            return client.predict(body, model="untrained").objects

        list(pool.map(one, range(CONNECTIONS)))
        start = time.perf_counter()
        list(pool.map(one, range(IMAGES)))
        return IMAGES / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ask", nargs=2, metavar=("URL", "IMAGE"), help="what the second process does")
    words = parser.parse_args()
    if words.ask:
        print(ask(words.ask[0], Path(words.ask[1]).read_bytes()))
        return

    with tempfile.TemporaryDirectory(prefix="cytoray-") as folder:
        bundle = untrained_bundle(Path(folder) / "bundle")
        path = make_segmentation(Path(folder) / "data", images=1, size=SIDE).items[0].image
        image = image_from_array(read_image(path).select("YX").read(), "YX")
        predictor = Predictor(bundle)
        predictor.predict(image)

        def in_process() -> float:
            start = time.perf_counter()
            for _ in range(IMAGES):
                predictor.predict(image)
            return IMAGES / (time.perf_counter() - start)

        with served(bundle.folder) as url:

            def through_the_endpoint() -> float:
                done = subprocess.run(
                    [sys.executable, __file__, "--ask", url, path], stdout=subprocess.PIPE, text=True, check=True
                )
                return float(done.stdout)

            endpoint, bare = alternate(ROUNDS, through_the_endpoint, in_process)
    report([Ratio("endpoint over the predictor in process, 1 MP", endpoint, bare, "images/s", 0.85)])


if __name__ == "__main__":
    main()
