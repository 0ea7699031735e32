"""How often a healthy training is accused: twenty short ones, of several tasks and seeds, and their findings.

Each is trained in this process, bundled, evaluated and diagnosed as ``cytoray train`` does, on data of its own with
nothing planted, enough of them (fifty validation images, sixteen fields of cells) and for long enough.
Usage: ``python tests/bench/healthy_runs.py [RUNS]``; prints one line per run, the share that was accused with its exact
interval, and JSON at the end.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.stats import binomtest

sys.path.append(str(Path(__file__).resolve().parents[1]))  # beside the tests, whose small trainings these are

from cytoray_services.datasets import Dataset, make_segmentation
from cytoray_services.datasets.synthetic.classification import make_classification
from cytoray_services.datasets.synthetic.label_free import make_label_free
from planted_faults import CLASSES, SEGMENTATION, merged, plan_for, trained

STAIN = merged(
    SEGMENTATION,
    {
        "model": {"task": {"name": "label_free"}},
        "data": {"scaling": {"method": "zscore"}},
        "augmentation": {"gamma": [1.0, 1.0], "blur": 0.0, "offset": 0.0, "gain": 0.1, "noise": 0.02},
        "training": {"learning_rate": 5e-3, "epochs": 12, "validate_every": 12},
    },
)


def _nuclei(folder: Path, seed: int) -> Dataset:
    return make_segmentation(folder, images=400, size=64, seed=seed)


def _mixed(folder: Path, seed: int) -> Dataset:
    return make_segmentation(folder, images=400, size=64, seed=seed, transmitted=0.5)


def _cells(folder: Path, seed: int) -> Dataset:
    return make_classification(folder, images=64, size=160, seed=seed, classes=2)


def _stains(folder: Path, seed: int) -> Dataset:
    return make_label_free(folder, images=400, size=64, seed=seed)


def _long(epochs: int) -> dict[str, Any]:
    """Return what trains to the end of what so small a network can learn."""
    return {"training": {"epochs": epochs, "validate_every": epochs}}


KINDS: tuple[tuple[str, Callable[[Path, int], Dataset], dict[str, Any]], ...] = (
    ("nuclei", _nuclei, merged(SEGMENTATION, _long(20))),
    ("cells", _cells, CLASSES),
    ("stains", _stains, STAIN),
    ("mixed nuclei", _mixed, merged(SEGMENTATION, _long(40))),
)


def main(runs: int) -> None:
    """Train, diagnose, and count."""
    torch.set_num_threads(1)
    counts: dict[str, int] = {}
    accused = []
    with tempfile.TemporaryDirectory(prefix="cytoray-healthy-") as scratch:
        for seed in range(runs):
            name, make, base = KINDS[seed % len(KINDS)]
            folder = Path(scratch) / str(seed)
            began = time.perf_counter()
            plan = plan_for(make(folder / "data", 100 + seed), folder, base, training={"seed": seed})
            diagnosis = trained(plan, folder / "run")
            for finding in diagnosis.findings:
                counts[finding.name] = counts.get(finding.name, 0) + 1
                accused.append({"run": seed, "kind": name, "finding": finding.name, "evidence": finding.evidence})
            found = ", ".join(finding.name for finding in diagnosis.findings) or "nothing"
            score = diagnosis.facts.validations[-1].score
            seconds = time.perf_counter() - began
            print(f"{seed:2d} {name:13s} {score:.3f}  {seconds:5.1f} s  {found}", file=sys.stderr, flush=True)
    bad = len({one["run"] for one in accused})
    exact = binomtest(bad, runs).proportion_ci(method="exact")
    print(f"{bad} of {runs} runs accused: {exact.low:.1%} to {exact.high:.1%} (95 %, exact)", file=sys.stderr)
    interval = [exact.low, exact.high]
    result = {"runs": runs, "accused_runs": bad, "interval": interval, "by_name": counts, "accused": accused}
    print(json.dumps(result))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
