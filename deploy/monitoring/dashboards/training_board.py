"""Training runs: whether they learn, how fast, and what slows them down."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from panels import dashboard, graph, number

_WHERE = 'namespace=~"$namespace", model=~"$model"'
_PLACE = 'namespace=~"$namespace"'
_RUN = "{{run}}"
_TRAINING_RUNS = f'{_PLACE}, kind="training"'


def training() -> Dashboard:
    """Describe the dashboard of training runs."""
    board = dashboard(
        "training",
        "Cytoray: training",
        "Whether training runs learn, how fast, and what slows them down. MLflow has their full history.",
        variables=(("namespace", "ray_cytoray_training_epoch"), ("model", "ray_cytoray_training_epoch")),
    )
    return _speed(_learning(_now(board)))


def _now(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Now"))
        .with_panel(
            number(
                "Active training runs",
                "Training runs with progress within the last five minutes.",
                f"count(time() - max by (run) (ray_cytoray_training_moved_timestamp_seconds{{{_WHERE}}}) < 300)",
                unit="short",
            )
        )
        .with_panel(
            number(
                "Longest without progress",
                "Longest time since the last progress of a training run. Healthy: below 30 minutes.",
                f"max(time() - ray_cytoray_training_moved_timestamp_seconds{{{_WHERE}}})",
                unit="s",
                steps=[(600, "orange"), (1800, "red")],
                runbook="CytorayTrainingStuck",
            )
        )
        .with_panel(
            number(
                "Crops per second",
                "Crops per second of all training runs together.",
                f"sum(ray_cytoray_training_crops_per_second{{{_WHERE}}})",
                unit="cps",
            )
        )
        .with_panel(
            number(
                "Queued jobs",
                "Queued training runs, as reported by the jobs service.",
                f'max(cytoray_jobs{{{_TRAINING_RUNS}, state="queued"}})',
                unit="short",
            )
        )
        .with_panel(
            number(
                "Running jobs",
                "Running training runs, as reported by the jobs service.",
                f'max(cytoray_jobs{{{_TRAINING_RUNS}, state="running"}})',
                unit="short",
            )
        )
        .with_panel(
            number(
                "Failed in 24 hours",
                "Training runs that failed within the last 24 hours. Healthy: 0.",
                f'sum(increase(cytoray_jobs_ended_total{{{_TRAINING_RUNS}, state="failed"}}[1d]))',
                unit="short",
                steps=[(1, "red")],
                runbook="CytorayTrainingFailed",
            )
        )
    )


def _learning(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Learning"))
        .with_panel(
            graph(
                "Loss",
                "Loss of each training run. Healthy: falls, more and more slowly.",
                (f"max by (run) (ray_cytoray_training_loss{{{_WHERE}}})", _RUN),
                unit="short",
            )
        )
        .with_panel(
            graph(
                "Score",
                "The metric that chooses the weights, at the last validation. Healthy: rises.",
                (f"max by (run) (ray_cytoray_training_score{{{_WHERE}}})", _RUN),
                unit="short",
            )
        )
        .with_panel(
            graph(
                "Progress",
                "Share of the planned epochs that have started; early stopping ends a training run before 100 %.",
                (
                    f"max by (run) (ray_cytoray_training_epoch{{{_WHERE}}} / ray_cytoray_training_epochs{{{_WHERE}}})",
                    _RUN,
                ),
                unit="percentunit",
                most=1,
            )
        )
    )


def _speed(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Speed"))
        .with_panel(
            graph(
                "Workers",
                "Processes that train together; fewer while nodes are missing, if the recipe allows it.",
                (f"max by (run) (ray_cytoray_training_workers{{{_WHERE}}})", _RUN),
                unit="short",
            )
        )
        .with_panel(
            graph(
                "Crops per second",
                "Speed of each training run, all its workers together.",
                (f"max by (run) (ray_cytoray_training_crops_per_second{{{_WHERE}}})", _RUN),
                unit="cps",
            )
        )
        .with_panel(
            graph(
                "Waiting for crops",
                "Share of the last epoch in which the network waited for images. Above 20 %, give workers more cores.",
                (f"max by (run) (ray_cytoray_training_waiting_share{{{_WHERE}}})", _RUN),
                unit="percentunit",
                steps=[(0.2, "orange")],
                most=1,
            )
        )
        .with_panel(
            graph(
                "Time since last progress",
                "Seconds since the last progress of each run. Healthy: below 30 minutes; validation shows as a peak.",
                (f"time() - max by (run) (ray_cytoray_training_moved_timestamp_seconds{{{_WHERE}}})", _RUN),
                unit="s",
                steps=[(1800, "red")],
                runbook="CytorayTrainingStuck",
            )
        )
        .with_panel(
            graph(
                "CPU use of nodes",
                "Utilization of the cores of each Ray node.",
                (f"avg by (ip) (ray_node_cpu_utilization{{{_PLACE}}})", "{{ip}}"),
                unit="percent",
                most=100,
            )
        )
        .with_panel(
            graph(
                "GPU use of nodes",
                "Utilization of the GPUs of each Ray node. Healthy: above 80 % during training.",
                (f"avg by (ip, GpuIndex) (ray_node_gpus_utilization{{{_PLACE}}})", "{{ip}} {{GpuIndex}}"),
                unit="percent",
                most=100,
            )
        )
    )
