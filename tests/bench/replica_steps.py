"""What a replica does until its first answer, in the same order and alone in a process, with the seconds of each step.

python tests/bench/replica_steps.py HOME REFERENCE IMAGE
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def steps(home: Path, reference: str, image: Path) -> dict[str, float]:
    """Take the steps one by one, and return their seconds."""
    stages: dict[str, float] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        stages[name] = time.perf_counter() - start

    with stage("import torch"):
        import torch  # noqa: F401
    with stage("import the rest of serving"):
        import cytoray_serving.replica.replica  # noqa: F401
        from cytoray_analysis.bundle import Bundle
        from cytoray_analysis.images import read_image
        from cytoray_analysis.predictor import Predictor
        from cytoray_services.registry import Registry
        from cytoray_services.settings import load_settings
        from cytoray_serving.answers import form_named
    with stage("registry: which version"):
        registry = Registry.open(load_settings({"CYTORAY_HOME": str(home)}))
        version = registry.resolve(reference)
    with stage("fetch the bundle"):
        folder = registry.fetch(version)
    with stage("load the network"):
        bundle = Bundle.load(folder)
        predictor = Predictor(bundle, version=version.version)
    with stage("its own test"):
        bundle.self_test()
    with stage("warm-up"):
        predictor.warm_up()
    with stage("first image: read"):
        read = read_image(image.read_bytes(), name="the image").select("CYX")
    with stage("first image: predict"):
        prediction = predictor.predict(read)
    with stage("first image: encode"):
        form_named("tif", "labels").encode(prediction)
    with stage("second image: predict"):
        predictor.predict(read)
    return stages


if __name__ == "__main__":
    print(json.dumps(steps(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))))
