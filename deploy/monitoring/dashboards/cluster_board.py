"""The cluster: how much of each resource is in use, what is full, and what is broken."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from panels import dashboard, graph, number

_PLACE = 'namespace=~"$namespace"'
_MEMORY = f"max by (ip) (ray_node_mem_used{{{_PLACE}}} / ray_node_mem_total{{{_PLACE}}})"


def cluster() -> Dashboard:
    """Describe the dashboard of the cluster: Ray's nodes, then what Kubernetes says of their pods."""
    board = dashboard(
        "cluster",
        "Cytoray: cluster",
        "How much of the cluster is in use, what is full, and what is broken: Ray's nodes and Kubernetes' pods.",
        variables=(("namespace", "ray_node_cpu_count"),),
    )
    return _kubernetes(_use(_now(board)))


def _now(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Now"))
        .with_panel(
            number(
                "Ray nodes",
                "Nodes of all Ray clusters, heads among them.",
                f"count(count by (ip) (ray_node_cpu_count{{{_PLACE}}}))",
                unit="short",
            )
        )
        .with_panel(
            number(
                "Cores in use",
                "Share of Ray's cores that replicas, trainings and jobs hold.",
                _held("CPU"),
                unit="percentunit",
            )
        )
        .with_panel(
            number(
                "Cards in use",
                "Share of Ray's graphics cards that are held.",
                _held("GPU"),
                unit="percentunit",
            )
        )
        .with_panel(
            number(
                "Waiting for a place",
                "Actors (replicas, workers) that wait for a node with room. Right: 0, but while nodes start.",
                f'sum(ray_actors{{{_PLACE}, Source="gcs", State=~"DEPENDENCIES_UNREADY|PENDING_CREATION"}})',
                unit="short",
                steps=[(1, "orange")],
            )
        )
        .with_panel(
            number(
                "Fullest memory",
                "Of the node whose memory is fullest. From 95 % on Ray ends processes.",
                f"max({_MEMORY})",
                unit="percentunit",
                steps=[(0.8, "orange"), (0.9, "red")],
                runbook="CytorayNodeMemoryHigh",
            )
        )
        .with_panel(
            number(
                "Fullest disk",
                "Of the node whose disk is fullest. From 95 % on Ray keeps no more objects there.",
                f"max(ray_node_disk_utilization_percentage{{{_PLACE}}})",
                unit="percent",
                steps=[(75, "orange"), (85, "red")],
                runbook="CytorayNodeDiskFull",
            )
        )
    )


def _use(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Ray's nodes"))
        .with_panel(
            graph(
                "Processors",
                "How busy the cores of each node are.",
                (f"max by (ip) (ray_node_cpu_utilization{{{_PLACE}}})", "{{ip}}"),
                unit="percent",
                most=100,
            )
        )
        .with_panel(
            graph(
                "Memory",
                "Share of each node's memory (of its pod's limit) that is in use. Right: below 90 %.",
                (_MEMORY, "{{ip}}"),
                unit="percentunit",
                most=1,
                steps=[(0.9, "red")],
                runbook="CytorayNodeMemoryHigh",
            )
        )
        .with_panel(
            graph(
                "Cards",
                "How busy each graphics card is.",
                (f"max by (ip, GpuIndex) (ray_node_gpus_utilization{{{_PLACE}}})", "{{ip}} {{GpuIndex}}"),
                unit="percent",
                most=100,
            )
        )
        .with_panel(
            graph(
                "Disks",
                "Share of each node's disk that is in use. Right: below 85 %.",
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
                "Objects that did not fit into shared memory and lie on disk. Right: 0; else work waits for the disk.",
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
                "Bytes that each node receives and sends in a second.",
                (f"max by (ip) (ray_node_network_receive_speed{{{_PLACE}}})", "{{ip}} in"),
                (f"max by (ip) (ray_node_network_send_speed{{{_PLACE}}})", "{{ip}} out"),
                unit="Bps",
            )
        )
    )


def _kubernetes(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Kubernetes' pods"))
        .with_panel(
            graph(
                "Pods",
                "Pods by phase. Pending for minutes: no node has room, or an image cannot be pulled.",
                (f"sum by (phase) (kube_pod_status_phase{{{_PLACE}}})", "{{phase}}"),
                unit="short",
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Restarts",
                "Containers that were started again within ten minutes. Right: none.",
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
                "Why containers do not start, such as ImagePullBackOff. Right: none for longer than minutes.",
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
