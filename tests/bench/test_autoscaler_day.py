"""The simulated day loses no image and invents none, and is the same at every run."""

from __future__ import annotations

import numpy as np
import pytest
from autoscaler_day import summary
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scale import PAGE, read_inputs
from simulated_day import DAY, Cluster, Day, Load, arrivals, simulate

from cytoray_serving.service.config import Replicas, RequestLimits

CLUSTER = Cluster(
    images_per_second=6.8, replica_seconds=16, node_seconds=120, replicas_per_node=4, node_idle_seconds=660
)


def hour(*bursts: tuple[int, int]) -> NDArray[np.int64]:
    asked = np.zeros(3600, np.int64)
    for second, images in bursts:
        asked[second] += images
    return asked


def counted(day: Day) -> bool:
    return day.asked == day.answered + day.expired + day.left


@settings(max_examples=15, deadline=None)
@given(
    bursts=st.lists(st.tuples(st.integers(0, 299), st.integers(0, 3000)), max_size=20),
    least=st.integers(0, 2),
    more=st.integers(0, 6),
    megapixels=st.floats(0.5, 600),
    idle=st.floats(1, 100),
    rate=st.floats(0.3, 200),
    seconds=st.floats(5, 200),
)
def test_no_image_is_lost_and_none_is_invented(
    bursts: list[tuple[int, int]], least: int, more: int, megapixels: float, idle: float, rate: float, seconds: float
) -> None:
    cluster = Cluster(rate, replica_seconds=8, node_seconds=30, replicas_per_node=2, node_idle_seconds=40)
    replicas = Replicas(min_replicas=least, max_replicas=max(1, least + more), megapixels=megapixels, idle_seconds=idle)
    day = simulate(hour(*bursts)[:300], cluster, replicas, RequestLimits(seconds=seconds))
    assert counted(day)
    assert day.seen[:, 2].max(initial=0) <= replicas.max_replicas
    assert day.seen[:, 2].min(initial=replicas.max_replicas) >= replicas.min_replicas


def test_a_day_is_the_same_at_every_run_and_another_with_another_seed() -> None:
    load = Load(images_per_second=5, plates_per_hour=2)
    assert np.array_equal(arrivals(load, 1), arrivals(load, 1))
    assert not np.array_equal(arrivals(load, 1), arrivals(load, 2))
    assert len(arrivals(load, 1)) == DAY


def test_the_first_answer_from_nothing_takes_a_node_and_a_replica() -> None:
    day = simulate(hour((10, 1)), CLUSTER, Replicas(min_replicas=0, max_replicas=4))
    assert counted(day)
    assert 136 <= day.wait(1) <= 138


def test_a_burst_from_nothing_starts_one_replica_before_it_starts_more() -> None:
    day = simulate(hour((10, 400)), CLUSTER, Replicas(min_replicas=0, max_replicas=4))
    wanted, running = day.seen[:, 2], day.seen[:, 3]
    assert set(wanted[20:140]) == {1}
    assert wanted.max() == 4
    assert np.argmax(wanted == 4) >= np.argmax(running == 1)


def test_replicas_that_no_one_asks_end_and_then_their_node() -> None:
    day = simulate(hour((10, 40)), CLUSTER, Replicas(min_replicas=0, max_replicas=4, idle_seconds=60))
    running, nodes = day.seen[:, 3], day.seen[:, 4]
    ended = int(np.flatnonzero(running)[-1])
    gone = int(np.flatnonzero(nodes)[-1])
    assert 650 <= gone - ended <= 670
    assert running[-1] == nodes[-1] == 0


def test_what_gateways_refuse_comes_again_and_is_answered() -> None:
    limits = RequestLimits(waiting_requests=100)
    day = simulate(hour((10, 1000)), CLUSTER, Replicas(min_replicas=2, max_replicas=2), limits)
    assert day.refused > 0
    assert day.answered == 1000
    assert day.wait(1) == pytest.approx(1000 / (2 * 6.8), rel=0.2)


def test_more_cannot_be_wanted_than_the_queue_has_room_for() -> None:
    """Whoever sets `megapixels` above what may wait never gets a second replica."""
    asked = np.full(1800, 20, np.int64)
    roomy = simulate(asked, CLUSTER, Replicas(min_replicas=1, max_replicas=8, megapixels=32))
    never = simulate(asked, CLUSTER, Replicas(min_replicas=1, max_replicas=8, megapixels=600))
    assert roomy.seen[:, 2].max() > 1
    assert never.seen[:, 2].max() == 1


def test_the_page_was_computed_with_its_inputs() -> None:
    assert summary(read_inputs()) in PAGE.read_text(encoding="utf-8"), "run python tests/bench/autoscaler_day.py"
