"""A cluster that Helm can look into: it answers what it is, and single objects that it has."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from deploy.charts import tool, whole_chart

# Group and version, then what the chart makes or looks for: resource, kind, and whether namespaces hold it.
RESOURCES: Mapping[str, Mapping[str, tuple[str, bool]]] = {
    "v1": {
        "configmaps": ("ConfigMap", True),
        "secrets": ("Secret", True),
        "services": ("Service", True),
        "serviceaccounts": ("ServiceAccount", True),
        "persistentvolumeclaims": ("PersistentVolumeClaim", True),
        "resourcequotas": ("ResourceQuota", True),
        "namespaces": ("Namespace", False),
    },
    "apps/v1": {"statefulsets": ("StatefulSet", True), "deployments": ("Deployment", True)},
    "batch/v1": {"jobs": ("Job", True)},
    "networking.k8s.io/v1": {"networkpolicies": ("NetworkPolicy", True), "ingresses": ("Ingress", True)},
    "admissionregistration.k8s.io/v1": {
        "validatingadmissionpolicies": ("ValidatingAdmissionPolicy", False),
        "validatingadmissionpolicybindings": ("ValidatingAdmissionPolicyBinding", False),
    },
    "monitoring.coreos.com/v1": {
        "podmonitors": ("PodMonitor", True),
        "servicemonitors": ("ServiceMonitor", True),
        "prometheusrules": ("PrometheusRule", True),
    },
    "policy/v1": {"poddisruptionbudgets": ("PodDisruptionBudget", True)},
    "autoscaling/v2": {"horizontalpodautoscalers": ("HorizontalPodAutoscaler", True)},
    "rbac.authorization.k8s.io/v1": {
        "roles": ("Role", True),
        "rolebindings": ("RoleBinding", True),
        "clusterroles": ("ClusterRole", False),
    },
    "scheduling.k8s.io/v1": {"priorityclasses": ("PriorityClass", False)},
    "ray.io/v1": {"rayservices": ("RayService", True)},
}


def render_into(
    objects: Mapping[str, Any],
    folder: Path,
    *settings: str,
    release: str = "cytoray",
    namespace: str = "lab",
    values: Mapping[str, Any] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Render the chart as an installation or an upgrade does, which ask the cluster.

    Parameters
    ----------
    objects
        See `cluster`.
    folder
        For what is written on the way.
    *settings
        Single values, such as ``redis.size=2Gi``.
    release, namespace
        Of the release.
    values
        What a value file holds.
    """
    chosen = [word for setting in settings for word in ("--set", setting)]
    with cluster(folder, objects) as kubeconfig:
        command = [tool("helm"), "template", release, str(whole_chart()), "--namespace", namespace, "--values", "-"]
        look = ["--dry-run=server", "--disable-openapi-validation", "--kubeconfig", str(kubeconfig)]
        given = json.dumps(values or {})
        return subprocess.run([*command, *look, *chosen], input=given, capture_output=True, text=True, check=False)


@contextmanager
def cluster(folder: Path, objects: Mapping[str, Any]) -> Iterator[Path]:
    """Run a cluster; yield its kubeconfig.

    Parameters
    ----------
    folder
        For the kubeconfig.
    objects
        By their addresses, such as ``/api/v1/namespaces/cytoray/secrets/cytoray-s3``.
    """

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            return

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            found = _about(path) or objects.get(path)
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            data = json.dumps(found or missing).encode()
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        "users": [{"name": "a", "user": {}}],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    try:
        yield path
    finally:
        server.shutdown()
        server.server_close()


def _about(path: str) -> Any:
    """Answer what a cluster is and what it knows."""
    if path == "/version":
        return {"major": "1", "minor": "36", "gitVersion": "v1.36.3"}
    if path == "/api":
        return {"kind": "APIVersions", "versions": ["v1"]}
    if path == "/apis":
        groups = []
        for version in [one for one in RESOURCES if "/" in one]:
            one = {"groupVersion": version, "version": version.partition("/")[2]}
            groups.append({"name": version.partition("/")[0], "versions": [one], "preferredVersion": one})
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    version = path.removeprefix("/apis/").removeprefix("/api/")
    if version in RESOURCES:
        kinds = [
            {"name": name, "kind": kind, "namespaced": namespaced, "singularName": "", "verbs": ["get", "list"]}
            for name, (kind, namespaced) in RESOURCES[version].items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": kinds}
    return None
