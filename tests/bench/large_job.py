"""Answer an OME-Zarr larger than memory as a job, and compare regions of it with the same regions predicted whole.

    python tests/bench/large_job.py MODEL [--side 40000] [--workers 2] [--region 4096] [--memory 1024]

The image repeats one synthetic field. The model scales intensities by its training set here, because a region that is
cut out has intensities of its own. Of each region those objects are compared that lie where neither the network nor the
decoding sees the cut.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from killed_job import Cluster
from large_image import write_mosaic
from numpy.typing import NDArray

from cytoray_analysis.bundle import Bundle, write_bundle
from cytoray_analysis.images import image_from_array, read_image
from cytoray_analysis.inference.pixels import PixelInference
from cytoray_analysis.predictor import Predictor
from cytoray_analysis.tasks.overlap import overlap
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.access import Caller
from cytoray_serving.jobs.drivers import Drivers
from cytoray_serving.jobs.request import JobRequest, JobStatus
from cytoray_serving.jobs.store import JobStore
from cytoray_serving.jobs.taking import JobTaker
from cytoray_serving.replica.options import ReplicaOptions
from cytoray_serving.service.config import JobsConfig, ServiceConfig


def scaled_by_the_training_set(model: Path, folder: Path) -> Path:
    bundle = Bundle.load(model)
    scaling = bundle.spec.input.scaling.model_copy(update={"scope": "dataset"})
    spec = bundle.spec.model_copy(update={"input": bundle.spec.input.model_copy(update={"scaling": scaling})})
    sample = np.zeros((spec.input.inputs, *(64,) * len(spec.input.spatial_axes)), np.float32)
    write_bundle(folder, spec, bundle.network().state_dict(), test_input=sample, card="# scaled by the training set\n")
    return folder


def run(taker: JobTaker, model: Path, source: Path, target: Path) -> JobStatus:
    request = JobRequest(input=source.as_uri(), output=target.as_uri())
    job = taker.take((str(model),), request, Caller("bench", ("submit",)))
    folder = taker.store.find(job.id)
    told = -1
    while not (status := folder.state()).has_ended:
        if status.blocks_done != told:
            told = status.blocks_done
            print(f"block {told} of {status.blocks_total}, {status.seconds:.0f} s", file=sys.stderr, flush=True)
        time.sleep(0.5)
    if status.state != "done" or status.items_failed:
        raise SystemExit(f"{status}\n{folder.log_text()[-4000:]}")
    return status


def compare(found: NDArray[Any], whole: NDArray[Any]) -> dict[str, Any]:
    """Match the objects of two label images that lie wholly inside."""
    inside = [set(np.unique(one)) - set(np.unique(_frame(one))) for one in (found, whole)]
    shared = overlap(whole, found)  # its pairs begin with the second
    pairs = {
        (int(a), int(b)): float(iou)
        for (a, b), iou in zip(shared.pairs, shared.iou, strict=True)
        if a in inside[0] or b in inside[1]
    }
    best = [max((iou for pair, iou in pairs.items() if pair[0] == one), default=0.0) for one in inside[0]]
    return {
        "objects": len(inside[0]),
        "objects_whole": len(inside[1]),
        "one_to_one": sum(iou >= 0.999 for iou in best),
        "smallest_iou": round(min(best, default=1.0), 6),
        "pixels_that_differ": int(np.count_nonzero((found > 0) != (whole > 0))),
    }


def _frame(labels: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--side", type=int, default=40_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--region", type=int, default=4096)
    parser.add_argument("--memory", type=int, default=1024, help="megabytes of the budget of a worker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cytoray-") as name:
        folder = Path(name)
        model = scaled_by_the_training_set(options.model, folder / "model")
        source = write_mosaic(folder, options.side)
        cluster = Cluster(options.workers + 1)
        run_options = ReplicaOptions(memory_budget=options.memory * 2**20)
        settings = load_settings({"CYTORAY_HOME": str(folder / "home")})
        jobs = JobsConfig(workers=options.workers, run=run_options)
        config = ServiceConfig(allowed=Allowed(roots=(folder,)), jobs=jobs)
        taker = JobTaker(JobStore(folder / "jobs"), settings, config)
        drivers = Drivers(taker.store, settings, cluster.address)
        drivers.start()
        try:
            status = run(taker, model, source, folder / "out")
        finally:
            drivers.close()
            cluster.kill()
        predictor = Predictor(Bundle.load(model), threads=1, memory_budget=2**33)
        assert isinstance(predictor.inference, PixelInference)
        edge = max(one + two for one, two in zip(predictor.inference.margin, predictor.inference.halo, strict=True))
        side = min(options.region, options.side)
        image, answer = read_image(source), read_image(folder / "out" / "mosaic.ome.zarr")
        regions = {}
        for start in sorted({0, (options.side - side) // 2, options.side - side}):
            # Starts where cells of the network start, so that the cut shows nowhere but at its edge.
            start -= start % max(predictor.inference.stride)
            part = (slice(start, start + side),) * 2
            inner = (slice(edge, side - edge),) * 2
            whole = predictor.predict(image_from_array(image.read(part), "YX", pixel_size=image.pixel_size)).answer
            regions[start] = compare(answer.read(part)[inner].astype(np.int64), whole[inner].astype(np.int64))
        print(
            json.dumps(
                {
                    "side": options.side,
                    "workers": options.workers,
                    "objects": status.objects,
                    "seconds": round(status.seconds, 1),
                    "megapixels_per_second": round(status.megapixels / status.seconds, 2),
                    "peak_worker_gigabytes": round(status.worker_megabytes / 1e3, 2),
                    "blocks": status.blocks_total,
                    "regions": regions,
                }
            )
        )


if __name__ == "__main__":
    main()
