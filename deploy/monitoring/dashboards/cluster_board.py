"""The cluster: resource use, full nodes and failures."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from panels import dashboard, graph, number

_PLACE = 'namespace=~"$namespace"'
_MEMORY = f"max by (ip) (ray_node_mem_used{{{_PLACE}}} / ray_node_mem_total{{{_PLACE}}})"


def cluster() -> Dashboard:
    """Describe the dashboard of the cluster: Ray's nodes, then their pods in Kubernetes."""
    board = dashboard(
        "cluster",
        "Cytoray: cluster",
        "Resource use, full nodes and failures: the nodes of Ray and the pods of Kubernetes.",
        variables=(("namespace", "ray_node_cpu_count"),),
    )
    return _kubernetes(_use(_now(board)))


def _now(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Now"))
        .with_panel(
            number(
                "Ray nodes",
                "Nodes of all Ray clusters, including heads.",
                f"count(count by (ip) (ray_node_cpu_count{{{_PLACE}}}))",
                unit="short",
            )
        )
        .with_panel(
            number(
                "Cores in use",
                "Share of Ray's cores that replicas, training runs and jobs use.",
                _held("CPU"),
                unit="percentunit",
            )
        )
        .with_panel(
            number(
                "GPUs in use",
                "Share of Ray's GPUs that are in use.",
                _held("GPU"),
                unit="percentunit",
            )
        )
        .with_panel(
            number(
                "Pending actors",
                "Actors (replicas, workers) that wait for free resources. Healthy: 0, except while nodes start.",
                f'sum(ray_actors{{{_PLACE}, Source="gcs", State=~"DEPENDENCIES_UNREADY|PENDING_CREATION"}})',
                unit="short",
                steps=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Highest memory use",
                "Of the node with the highest memory use. From 95 % on Ray kills processes.",
                f"max({_MEMORY})",
                unit="percentunit",
                steps=[(0.8, "orange"), (0.9, "red")],
                runbook="CytorayNodeMemoryHigh",
            )
        )
        .with_panel(
            number(
                "Highest disk use",
                "Of the node with the highest disk use. From 95 % on Ray stores no more objects there.",
                f"max(ray_node_disk_utilization_percentage{{{_PLACE}}})",
                unit="percent",
                steps=[(75, "orange"), (85, "red")],
                runbook="CytorayNodeDiskFull",
            )
        )
    )


def _use(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Ray nodes"))
        .with_panel(
            graph(
                "CPU use",
                "Utilization of the cores of each node.",
                (f"max by (ip) (ray_node_cpu_utilization{{{_PLACE}}})", "{{ip}}"),
                unit="percent",
                most=100,
            )
        )
        .with_panel(
            graph(
                "Memory",
                "Share of each node's memory (of its pod's limit) that is in use. Healthy: below 90 %.",
                (_MEMORY, "{{ip}}"),
                unit="percentunit",
                most=1,
                steps=[(0.9, "red")],
                runbook="CytorayNodeMemoryHigh",
            )
        )
        .with_panel(
            graph(
                "GPU use",
                "Utilization of each GPU.",
                (f"max by (ip, GpuIndex) (ray_node_gpus_utilization{{{_PLACE}}})", "{{ip}} {{GpuIndex}}"),
                unit="percent",
                most=100,
            )
        )
        .with_panel(
            graph(
                "Disk use",
                "Share of each node's disk that is in use. Healthy: below 85 %.",
                (f"max by (ip) (ray_node_disk_utilization_percentage{{{_PLACE}}})", "{{ip}}"),
                unit="percent",
                most=100,
                steps=[(85, "red")],
                runbook="CytorayNodeDiskFull",
            )
        )
        .with_panel(
            graph(
                "Spilled objects",
                "Objects on disk that did not fit into shared memory. Healthy: 0; otherwise work waits for the disk.",
                (
                    f'sum by (NodeAddress) (ray_object_store_memory{{{_PLACE}, Location=~"SPILLED|MMAP_DISK"}})',
                    "{{NodeAddress}}",
                ),
                unit="bytes",
            )
        )
        .with_panel(
            graph(
                "Network",
                "Bytes that each node receives and sends per second.",
                (f"max by (ip) (ray_node_network_receive_speed{{{_PLACE}}})", "{{ip}} in"),
                (f"max by (ip) (ray_node_network_send_speed{{{_PLACE}}})", "{{ip}} out"),
                unit="Bps",
            )
        )
    )


def _kubernetes(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Kubernetes pods"))
        .with_panel(
            graph(
                "Pods",
                "Pods by phase. Pending for minutes: no node has free resources, or an image cannot be pulled.",
                (f"sum by (phase) (kube_pod_status_phase{{{_PLACE}}})", "{{phase}}"),
                unit="short",
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Restarts",
                "Containers that restarted within ten minutes. Healthy: none.",
                (
                    "sum by (pod, container) "
                    f"(increase(kube_pod_container_status_restarts_total{{{_PLACE}}}[10m])) > 0",
                    "{{pod}} {{container}}",
                ),
                unit="short",
            )
        )
        .with_panel(
            graph(
                "Waiting containers",
                "Why containers do not start, such as ImagePullBackOff. Healthy: none, except for a few minutes.",
                (
                    f"sum by (pod, reason) (kube_pod_container_status_waiting_reason{{{_PLACE}}}) > 0",
                    "{{pod}} {{reason}}",
                ),
                unit="short",
            )
        )
    )


def _held(resource: str) -> str:
    where = f'{_PLACE}, Name="{resource}"'
    return f'sum(ray_resources{{{where}, State="USED"}}) / sum(ray_resources{{{where}}})'
