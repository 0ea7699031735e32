"""How many replicas there should be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_serving.service.autoscaling import PER_REQUEST, WAITING, MegapixelsWaiting, replicas_for


@pytest.mark.parametrize(
    ("waiting", "queued", "ongoing", "size", "wanted"),
    [
        (0, 0, 0, 1, 0),
        (0, 0, 1, 1, 1),
        (0.1, 0, 1, 1, 1),
        (8, 0, 2, 4, 1),
        (8.1, 0, 3, 4, 2),
        (500, 0, 1, 500, 63),
        (0, 500, 500, 0.065, 5),
        (0, 1, 1, 100, 13),
    ],
)
def test_megapixels_decide_and_not_requests(
    waiting: float, queued: float, ongoing: float, size: float, wanted: int
) -> None:
    assert replicas_for(waiting=waiting, queued=queued, ongoing=ongoing, size=size, megapixels=8.0) == wanted


@given(st.floats(0, 1e6), st.floats(0, 1e4), st.floats(0, 1e4), st.floats(0.001, 1e3))
def test_work_keeps_a_replica_and_more_work_never_asks_for_fewer(
    waiting: float, queued: float, ongoing: float, size: float
) -> None:
    def wanted(more: float) -> int:
        return replicas_for(waiting=waiting + more, queued=queued, ongoing=ongoing, size=size, megapixels=8.0)

    assert (wanted(0) == 0) == (waiting <= 0 and ongoing <= 0)
    assert wanted(1) >= max(1, wanted(0))


def test_the_policy_reads_what_replicas_and_handles_report() -> None:
    from ray.serve._private.common import DeploymentID
    from ray.serve.config import AutoscalingContext

    context = AutoscalingContext(
        deployment_id=DeploymentID("model", "cytoray"),
        deployment_name="model",
        app_name="cytoray",
        current_num_replicas=2,
        target_num_replicas=2,
        running_replicas=[],
        total_num_requests=12.0,
        total_queued_requests=4.0,
        aggregated_metrics={WAITING: {"a": 6.0, "b": 10.0}, PER_REQUEST: {"a": 2.0, "b": 4.0}},  # type: ignore[dict-item]
        raw_metrics=None,
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=9,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=None,
        config=None,
    )
    assert MegapixelsWaiting(megapixels=7.0)(context) == (4, {})
