"""The service: traffic, errors and latency for callers, and the load that causes them."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from panels import dashboard, graph, number

_WHERE = 'namespace=~"$namespace", model=~"$model"'
_PLACE = 'namespace=~"$namespace"'
# Disconnected callers (499) and client errors are not failures of the service.
_FAILED = f'{_WHERE}, status=~"5.."'


def service() -> Dashboard:
    """Describe the dashboard of the service, from symptoms to causes."""
    board = dashboard(
        "service",
        "Cytoray: service",
        "Whether callers get answers, how fast, and the load of the service.",
        variables=(("namespace", "cytoray_model_info"), ("model", "cytoray_model_info")),
    )
    return _causes(_signals(_now(board)))


def _now(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Now"))
        .with_panel(
            number(
                "Models without a replica",
                "Models with a minimum of one replica or more of which none answers. Healthy: 0.",
                f"sum(1 - max by (namespace, model) (cytoray_model_ready{{{_WHERE}}}))",
                unit="short",
                steps=[(1, "red")],
                runbook="CytorayModelNotReady",
            )
        )
        .with_panel(
            number(
                "Failed",
                "Share of requests that the service failed to answer (5xx). Healthy: below 0.5 %.",
                f"sum(rate(cytoray_requests_total{{{_FAILED}}}[5m]) or vector(0))"
                f" / sum(rate(cytoray_requests_total{{{_WHERE}}}[5m]))",
                unit="percentunit",
                steps=[(0.005, "orange"), (0.03, "red")],
                runbook="CytorayErrorRateHigh",
            )
        )
        .with_panel(
            number(
                "Latency, p99",
                "99 of 100 answers took no longer than this. Healthy: below 10 s; large images take longer.",
                f"histogram_quantile(0.99, sum by (le) (rate(cytoray_request_seconds_bucket{{{_WHERE}}}[5m])))",
                unit="s",
                steps=[(10, "red")],
                runbook="CytorayLatencyHigh",
            )
        )
        .with_panel(
            number(
                "Queue",
                "Seconds that the current queue will take at the speed of the last five minutes. Healthy: below 30 s.",
                f"sum(cytoray_waiting_megapixels{{{_WHERE}}}) / sum(rate(cytoray_megapixels_total{{{_WHERE}}}[5m]))",
                unit="s",
                steps=[(30, "red")],
                runbook="CytorayQueueNotFalling",
            )
        )
        .with_panel(
            number(
                "Requests",
                "Answered requests per second, including refusals and failures.",
                f"sum(rate(cytoray_requests_total{{{_WHERE}}}[5m]))",
                unit="reqps",
            )
        )
        .with_panel(
            number(
                "Gateways",
                "Gateways that Prometheus reaches.",
                f"count(count by (namespace, instance) (cytoray_model_info{{{_PLACE}}}))",
                unit="short",
                runbook="CytorayGatewayDown",
            )
        )
    )


def _signals(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Requests"))
        .with_panel(
            graph(
                "Requests by status",
                "2xx: answered. 4xx: error of the caller; 429: the queue was full. 5xx: the service failed.",
                (
                    f"sum by (status) (rate(cytoray_requests_total{{{_WHERE}}}[$__rate_interval]))",
                    "{{status}}",
                ),
                unit="reqps",
                stacked=True,
                runbook="CytorayRequestsRefused",
            )
        )
        .with_panel(
            graph(
                "Failed requests",
                "Share of a model's requests that ended with 5xx. Healthy: below 0.5 %.",
                (
                    f"sum by (model) (rate(cytoray_requests_total{{{_FAILED}}}[$__rate_interval]))"
                    f" / sum by (model) (rate(cytoray_requests_total{{{_WHERE}}}[$__rate_interval]))"
                    f" or 0 * sum by (model) (rate(cytoray_requests_total{{{_WHERE}}}[$__rate_interval]))",
                    "{{model}}",
                ),
                unit="percentunit",
                steps=[(0.005, "orange"), (0.03, "red")],
                runbook="CytorayErrorRateHigh",
            )
        )
        .with_panel(
            graph(
                "Latency",
                "Time from the last byte of a request to its answer, for answered requests.",
                *(
                    (
                        f"histogram_quantile({quantile}, sum by (le) "
                        f"(rate(cytoray_request_seconds_bucket{{{_WHERE}}}[$__rate_interval])))",
                        name,
                    )
                    for quantile, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
                ),
                unit="s",
                steps=[(10, "red")],
                runbook="CytorayLatencyHigh",
            )
        )
        .with_panel(
            graph(
                "Time per stage",
                "Mean seconds per stage of an answer. A long queue needs more replicas, a slow network a faster GPU.",
                (
                    f"sum by (stage) (rate(cytoray_stage_seconds_sum{{{_WHERE}}}[$__rate_interval]))"
                    f" / sum by (stage) (rate(cytoray_stage_seconds_count{{{_WHERE}}}[$__rate_interval]))",
                    "{{stage}}",
                ),
                unit="s",
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Megapixels answered",
                "Completed work by model, in megapixels because requests differ in size.",
                (f"sum by (model) (rate(cytoray_megapixels_total{{{_WHERE}}}[$__rate_interval]))", "{{model}}"),
                unit="Mpx/s",
                stacked=True,
            )
        )
        .with_panel(
            graph(
                "Loaded versions",
                "Loaded version of each model; two for one model while a canary runs or gateways switch.",
                (
                    f"max by (model, version) (cytoray_model_info{{{_WHERE}}})",
                    "{{model}}/{{version}}",
                ),
                unit="short",
                most=1,
            )
        )
    )


def _causes(board: Dashboard) -> Dashboard:
    return (
        board.with_row(Row("Load"))
        .with_panel(
            graph(
                "Queued megapixels",
                "Running or queued, in all gateways. Replicas scale with it. Healthy: falls again after a peak.",
                (f"sum by (model) (cytoray_waiting_megapixels{{{_WHERE}}})", "{{model}}"),
                unit="Mpx",
                runbook="CytorayQueueNotFalling",
            )
        )
        .with_panel(
            graph(
                "Replicas",
                "Healthy replicas, and the target number. Healthy: equal, except while replicas start.",
                (
                    f'sum by (deployment) (ray_serve_deployment_replica_healthy{{{_PLACE}, application="cytoray"}})',
                    "{{deployment}}",
                ),
                (
                    f'max by (deployment) (ray_serve_autoscaling_target_replicas{{{_PLACE}, application="cytoray"}})',
                    "{{deployment}}: target",
                ),
                unit="short",
                runbook="CytorayModelNotReady",
            )
        )
        .with_panel(
            graph(
                "Images per batch",
                "Mean number of images per batch. If it is 1 under load, requests arrive one after the other.",
                (
                    f"sum by (model) (rate(cytoray_batch_images_sum{{{_WHERE}}}[$__rate_interval]))"
                    f" / sum by (model) (rate(cytoray_batch_images_count{{{_WHERE}}}[$__rate_interval]))",
                    "{{model}}",
                ),
                unit="short",
            )
        )
        .with_panel(
            graph(
                "Memory of gateways",
                "Resident memory of each gateway, which includes request bodies.",
                (
                    f"process_resident_memory_bytes{{{_PLACE}}} and on (instance) cytoray_model_info",
                    "{{instance}}",
                ),
                unit="bytes",
            )
        )
        .with_panel(
            graph(
                "Bulk jobs",
                "Queued and running jobs; every gateway reports the same numbers.",
                (
                    f'max by (state) (cytoray_jobs{{{_PLACE}, kind="bulk", state=~"queued|running"}})',
                    "{{state}}",
                ),
                unit="short",
            )
        )
        .with_panel(
            graph(
                "Bulk jobs without progress",
                "Seconds since a running job last finished an image or a block. Healthy: below 15 minutes.",
                (f'max by (id) (cytoray_job_idle_seconds{{{_PLACE}, kind="bulk"}})', "{{id}}"),
                unit="s",
                steps=[(900, "red")],
                runbook="CytorayJobStuck",
            )
        )
    )
