"""Images a second of two replicas against one, one megapixel each and one thread each.

python tests/bench/two_replicas.py [--bundle FOLDER] [--rounds N] [--seconds S]

Both services are up; the load comes from a second process over as many connections as keep two replicas busy, and
goes to one of them at a time, in turn. The client costs about half a millisecond of processor time per image.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from inference_speed import SIDE, untrained_bundle
from load import measure_load, percentile
from measure import Ratio, alternate, report
from servers import Server, start_cytoray, stop_servers_when_told_to
from sureness import highest_quantile

from cytoray_analysis.bundle import Bundle
from cytoray_services.datasets import make_segmentation


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="by default the network of the shipped recipe, untrained")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20.0, help="of load, per service and round")
    parser.add_argument("--connections", type=int, default=6)
    parser.add_argument("--images", type=int, default=6, help="different images")
    words = parser.parse_args()
    if (os.cpu_count() or 1) < 2:
        sys.exit("two replicas of one thread each need two cores")
    stop_servers_when_told_to()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as name:
        folder = Path(name)
        bundle = untrained_bundle(folder / "bundle") if words.bundle is None else Bundle.load(words.bundle.absolute())
        data = make_segmentation(folder / "data", images=words.images, size=SIDE)
        files = [item.image for item in data.items]

        def serve(replicas: int) -> Server:
            options = ["--replicas", str(replicas), "--threads", "1"]
            return start_cytoray([str(bundle.folder), *options], home=folder / f"home-{replicas}")

        with serve(1) as one, serve(2) as two:

            def rate(server: Server) -> float:
                load = measure_load(server.url, files, "image/tiff", words.connections, words.seconds)
                middle, share = percentile(load.latencies, 0.5), highest_quantile(load.latencies)
                shown = [f"p50 {middle * 1e3:.0f} ms"]
                if share is not None:
                    shown.append(f"p{100 * share:g} {percentile(load.latencies, share) * 1e3:.0f} ms")
                print("  " + ", ".join(shown), file=sys.stderr, flush=True)
                return load.rate

            for server in (one, two):
                measure_load(server.url, files, "image/tiff", words.connections, 5.0)
            single, double = alternate(words.rounds, lambda: rate(one), lambda: rate(two))
    report([Ratio("two replicas over one, 1 MP, one thread each", double, single, "images/s", 1.7)])


if __name__ == "__main__":
    main()
