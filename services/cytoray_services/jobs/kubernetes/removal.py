"""Removes the KubeRay objects of a release before uninstalling: ``python -m cytoray_services.jobs.kubernetes.removal``.

KubeRay's operator cleans up its objects and then removes their finalizers. If the operator is removed at the same time,
they stay partly removed, and a new installation with the same name never starts. The chart runs this before
``helm uninstall`` removes anything: the operator, network policies, and Redis with the state of the service's head.
"""

from __future__ import annotations

import argparse
import sys
import time

from cytoray_analysis.errors import CytorayError, PlatformError
from cytoray_services.jobs.kubernetes.connection import Cluster, connect, no_cluster
from cytoray_services.jobs.kubernetes.errors import RefusedError
from cytoray_services.jobs.kubernetes.manifest import RAY_GROUP

_OURS = "app.kubernetes.io/part-of=cytoray"
_SERVING = f"{_OURS},app.kubernetes.io/component=serving"
_PAUSE = 2.0  # seconds between two checks


def remove(cluster: Cluster, *, jobs: bool, seconds: float, training_namespace: str | None = None) -> list[str]:
    """Delete the service, and wait until it and its Ray clusters are removed.

    Parameters
    ----------
    cluster
        Cluster of the release.
    jobs
        Whether training jobs are removed as well, because without the operator nothing would clean them up.
    training_namespace
        Their namespace; None for the one of the release.
    seconds
        Timeout.

    Returns
    -------
    list of str
        The removed objects, as ``resource/name``.

    Raises
    ------
    PlatformError
        An object still exists, or cannot be deleted.
    """
    wanted = [(cluster.path(RAY_GROUP, kind), _SERVING) for kind in ("rayservices", "rayclusters")]
    if jobs:
        place = cluster if training_namespace is None else Cluster(cluster.client, training_namespace)
        wanted += [(place.path(RAY_GROUP, kind), _OURS) for kind in ("rayclusters", "rayjobs")]
    gone: dict[str, None] = {}
    until = time.monotonic() + seconds
    while left := _left(cluster, wanted):
        for path, deleted in left.values():
            if not deleted:
                cluster.delete(path)
        gone |= dict.fromkeys(left)
        if time.monotonic() > until:
            raise PlatformError(
                f"expected KubeRay to remove {', '.join(left)} within {seconds:g} s, but it still exists",
                hint="check that the operator of KubeRay runs (kubectl get pods -A | grep kuberay), and try again",
            )
        time.sleep(_PAUSE)
    return list(gone)


def _left(cluster: Cluster, wanted: list[tuple[str, str]]) -> dict[str, tuple[str, bool]]:
    """Return the objects as ``resource/name``, each with its address and whether it is being deleted."""
    found: dict[str, tuple[str, bool]] = {}
    for path, selector in wanted:
        try:
            items, _ = cluster.list(path, labelSelector=selector)
        except RefusedError as refused:
            if refused.code != 404:
                raise
            continue  # KubeRay's definitions are not installed
        for one in items:
            metadata = one["metadata"]
            # A cluster of a service or a job is removed with it.
            goes = bool(metadata.get("ownerReferences")) or "deletionTimestamp" in metadata
            found[f"{path.rpartition('/')[2]}/{metadata['name']}"] = (f"{path}/{metadata['name']}", goes)
    return found


def main() -> None:
    """Run from a pod of the namespace."""
    parser = argparse.ArgumentParser(description="Remove the KubeRay objects of a release.")
    parser.add_argument("--jobs", action="store_true", help="also remove training jobs, with the KubeRay operator")
    parser.add_argument("--training-namespace", help="namespace of the training jobs, if it is another one")
    parser.add_argument("--seconds", type=float, default=240.0, help="timeout in seconds, 240 by default")
    arguments = parser.parse_args()
    try:
        cluster = connect("", "")
        if cluster is None:
            raise no_cluster()
        jobs, namespace = bool(arguments.jobs), arguments.training_namespace
        for name in remove(cluster, jobs=jobs, seconds=arguments.seconds, training_namespace=namespace):
            print(f"removed {name}")
    except CytorayError as error:
        sys.exit(f"{error.message}; {error.hint}" if error.hint else error.message)


if __name__ == "__main__":
    main()
