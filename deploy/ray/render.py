"""Write the examples next to this file: what ``cytoray jobs train --on kubernetes --dry-run`` prints, and a cluster.

Run it after a change of the manifests; a test compares the files with its output.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from cytoray_services.jobs.kubernetes.manifest import Manifest, PlainDumper, build
from cytoray_services.jobs.platform import Platform
from cytoray_services.jobs.scale import Scale
from cytoray_services.jobs.submission import Submission

FOLDER = Path(__file__).parent
NAMESPACE = "cytoray"

_HEAD = """\
# {title}
# An example, written by deploy/ray/render.py. For your own job:
#   cytoray jobs train RECIPE --on kubernetes --dry-run
"""
_RECIPE = """\
model:
  name: nuclei
  task:
    name: segmentation
data:
  root: pvc://images/nuclei
training:
  epochs: 50
"""
_CLUSTER = """\
# A long-running Ray cluster: cytoray jobs train RECIPE --on http://HEAD:8265, with RAY_AUTH_TOKEN from its secret.
# An example, written by deploy/ray/render.py. Workers start on demand, and stop after five idle minutes.
# Ray's autoscaler writes the number of workers here: a second kubectl apply --server-side needs --force-conflicts.
"""


def render() -> dict[str, str]:
    """Return the text of each example by its file's name."""
    return {
        "rayjob.yaml": _job(
            "nuclei-x7k2q", "A training run on two nodes without GPUs.", Scale(workers=2, cpus_per_worker=4)
        ),
        "rayjob-elastic-gpu.yaml": _job(
            "nuclei-gpu-m4w9z",
            "A training run on two to eight spot nodes with a GPU each: it shrinks and grows with the nodes.",
            Scale(
                workers=8,
                min_workers=2,
                cpus_per_worker=8,
                gpus_per_worker=1,
                memory_per_worker="32Gi",
                shared_memory="8Gi",
                scratch="200Gi",
                spot=True,
            ),
        ),
        "raycluster.yaml": _CLUSTER + _cluster(Scale(workers=4, cpus_per_worker=4, memory_per_worker="16Gi")),
    }


def _build(job_id: str, scale: Scale) -> Manifest:
    data = ("pvc://images/nuclei",)
    submission = Submission(id=job_id, command="train", name="nuclei", recipe=_RECIPE, scale=scale, data=data)
    return build(submission, Platform(data_claims=("images",)), owner="ann", team="cells")


def _job(job_id: str, title: str, scale: Scale) -> str:
    return _HEAD.format(title=title) + _build(job_id, scale).as_yaml(NAMESPACE)


def _cluster(scale: Scale) -> str:
    """Return the cluster of an elastic job, without the parts that belong to one job."""
    rayjob = _build("cytoray", scale.model_copy(update={"min_workers": 1})).rayjob
    spec = rayjob["spec"]["rayClusterSpec"]
    labels = {"app.kubernetes.io/part-of": "cytoray", "app.kubernetes.io/component": "training"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        group["template"]["metadata"]["labels"] = labels
        pod["volumes"] = [one for one in pod["volumes"] if one["name"] != "job"]
        for container in pod["containers"]:
            container["volumeMounts"] = [one for one in container["volumeMounts"] if one["name"] != "job"]
        for spread in pod.get("topologySpreadConstraints", ()):
            spread["labelSelector"]["matchLabels"] = labels | {"ray.io/node-type": "worker"}
    for group in spec["workerGroupSpecs"]:
        group |= {"replicas": 0, "minReplicas": 0}
    metadata = {"name": "cytoray", "namespace": NAMESPACE, "labels": labels}
    cluster = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": metadata, "spec": spec}
    return yaml.dump(cluster, Dumper=PlainDumper, sort_keys=False, width=120)


def main() -> None:
    """Write the files."""
    for name, text in render().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
