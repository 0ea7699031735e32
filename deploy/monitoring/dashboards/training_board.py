"""Trainings: whether they learn, how fast, and what holds them up."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from panels import dashboard, graph, number

_WHERE = 'namespace=~"$namespace", model=~"$model"'
_PLACE = 'namespace=~"$namespace"'
_RUN = "{{run}}"
_TRAININGS = f'{_PLACE}, kind="training"'


def training() -> Dashboard:
    """Describe the dashboard of trainings."""
    board = dashboard(
        "training",
        "Cytoray: training",
        "Whether trainings learn, how fast they are, and what holds them up. Their whole history is in MLflow.",
        variables=(("namespace", "ray_cytoray_training_epoch"), ("model", "ray_cytoray_training_epoch")),
    )
    return _speed(_learning(_now(board)))


def _now(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Now"))
        .with_panel(
            number(
                "Trainings that move",
                "Trainings that have moved forward within the last five minutes.",
                f"count(time() - max by (run) (ray_cytoray_training_moved_timestamp_seconds{{{_WHERE}}}) < 300)",
                unit="short",
            )
        )
        .with_panel(
            number(
                "Longest without progress",
                "Seconds since the training that stands longest last moved forward. Right: below 30 minutes.",
                f"max(time() - ray_cytoray_training_moved_timestamp_seconds{{{_WHERE}}})",
                unit="s",
                steps=[(600, "orange"), (1800, "red")],
                runbook="CytorayTrainingStuck",
            )
        )
        .with_panel(
            number(
                "Crops per second",
                "What all trainings together train on.",
                f"sum(ray_cytoray_training_crops_per_second{{{_WHERE}}})",
                unit="cps",
            )
        )
        .with_panel(
            number(
                "Queued jobs",
                "Trainings that wait for nodes or for their turn, as the jobs service knows them.",
                f'max(cytoray_jobs{{{_TRAININGS}, state="queued"}})',
                unit="short",
            )
        )
        .with_panel(
            number(
                "Running jobs",
                "Trainings that run, as the jobs service knows them.",
                f'max(cytoray_jobs{{{_TRAININGS}, state="running"}})',
                unit="short",
            )
        )
        .with_panel(
            number(
                "Failed in a day",
                "Trainings that failed within the last 24 hours. Right: 0.",
                f'sum(increase(cytoray_jobs_ended_total{{{_TRAININGS}, state="failed"}}[1d]))',
                unit="short",
                steps=[(1, "red")],
                runbook="CytorayTrainingFailed",
            )
        )
    )


def _learning(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Do they learn?"))
        .with_panel(
            graph(
                "Loss",
                "Loss of each training. Right: falls, ever more slowly.",
                (f"max by (run) (ray_cytoray_training_loss{{{_WHERE}}})", _RUN),
                unit="short",
            )
        )
        .with_panel(
            graph(
                "Score",
                "The metric that decides which weights are kept, at the last validation. Right: rises.",
                (f"max by (run) (ray_cytoray_training_score{{{_WHERE}}})", _RUN),
                unit="short",
            )
        )
        .with_panel(
            graph(
                "Progress",
                "Share of the planned epochs that has begun; an early stop ends a training before 100 %.",
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
        board.with_row(Row("What holds them up?"))
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
                "How fast each training is, all its workers together.",
                (f"max by (run) (ray_cytoray_training_crops_per_second{{{_WHERE}}})", _RUN),
                unit="cps",
            )
        )
        .with_panel(
            graph(
                "Waiting for crops",
                "Share of the last epoch that the network waited for images. Above 20 %, give workers more cores.",
                (f"max by (run) (ray_cytoray_training_waiting_share{{{_WHERE}}})", _RUN),
                unit="percentunit",
                steps=[(0.2, "orange")],
                most=1,
            )
        )
        .with_panel(
            graph(
                "Since the last progress",
                "Seconds since each training last moved forward. Right: below 30 minutes; validation shows as a peak.",
                (f"time() - max by (run) (ray_cytoray_training_moved_timestamp_seconds{{{_WHERE}}})", _RUN),
                unit="s",
                steps=[(1800, "red")],
                runbook="CytorayTrainingStuck",
            )
        )
        .with_panel(
            graph(
                "Processors of nodes",
                "How busy the cores of each Ray node are.",
                (f"avg by (ip) (ray_node_cpu_utilization{{{_PLACE}}})", "{{ip}}"),
                unit="percent",
                most=100,
            )
        )
        .with_panel(
            graph(
                "Cards of nodes",
                "How busy the graphics cards of each Ray node are. Right: above 80 % while training.",
                (f"avg by (ip, GpuIndex) (ray_node_gpus_utilization{{{_PLACE}}})", "{{ip}} {{GpuIndex}}"),
                unit="percent",
                most=100,
            )
        )
    )
