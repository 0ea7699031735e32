"""Quotas: what jobs hold, and what is refused for good or for now."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cytoray_analysis.errors import ForbiddenError, OverloadedError
from cytoray_services.jobs.job import Job, State
from cytoray_services.jobs.kubernetes.manifest import build
from cytoray_services.jobs.kubernetes.quantities import needs
from cytoray_services.jobs.platform import Platform
from cytoray_services.jobs.scale import Scale
from cytoray_services.jobs.service.config import Quota
from cytoray_services.jobs.service.quotas import asked, held, require_quota
from cytoray_services.jobs.submission import Submission


def job(state: State = "running", team: str | None = "lab", **scale: int | str) -> Job:
    return Job(id="a", name="a", state=state, place="kubernetes", team=team, scale=Scale.model_validate(scale))


def test_what_is_queued_or_running_is_held_and_nothing_else() -> None:
    jobs = [job("queued", workers=2, gpus_per_worker=1), job("running"), job("done"), job("failed"), job("cancelled")]
    found = held([*jobs, job(team="other"), job(team=None)], "lab")
    assert (found.jobs, found.gpus, found.cpus, int(found.memory)) == (2, 2, 3, 3 * (8 + 2) * 2**30)


@pytest.mark.parametrize(
    ("quota", "scale", "told"),
    [
        (Quota(jobs=0), {}, "at most 0 jobs"),
        (Quota(gpus=1), {"workers": 2, "gpus_per_worker": 1}, "at most 1 GPUs.*got 2"),
        (Quota(cpus=3), {"workers": 2, "cpus_per_worker": 2}, "at most 3 CPUs.*got 4"),
        (Quota(memory="39Gi"), {"workers": 4}, "at most 39Gi of memory.*got 40Gi"),
    ],
)
def test_a_job_larger_than_the_quota_is_refused_for_good(quota: Quota, scale: dict[str, int], told: str) -> None:
    with pytest.raises(ForbiddenError, match=told):
        require_quota("lab", quota, [], Scale.model_validate(scale))


def test_a_job_that_fits_later_is_refused_for_now() -> None:
    quota = Quota(gpus=4)
    require_quota("lab", quota, [job(workers=2, gpus_per_worker=1)], Scale(workers=2, gpus_per_worker=1))
    with pytest.raises(OverloadedError, match="the team lab uses 3 of its 4 GPUs, and this job requests 2") as caught:
        require_quota("lab", quota, [job(workers=3, gpus_per_worker=1)], Scale(workers=2, gpus_per_worker=1))
    assert caught.value.status == 429


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(0, 1))), st.integers(0, 20))
def test_jobs_that_are_let_in_one_after_the_other_never_exceed_the_quota(
    asked: list[tuple[int, int]], limit: int
) -> None:
    jobs: list[Job] = []
    for workers, gpus in asked:
        scale = Scale(workers=workers, gpus_per_worker=gpus)
        try:
            require_quota("lab", Quota(gpus=limit), jobs, scale)
        except (ForbiddenError, OverloadedError):
            assert held(jobs, "lab").gpus + workers * gpus > limit
            continue
        jobs.append(job(workers=workers, gpus_per_worker=gpus))
        assert held(jobs, "lab").gpus <= limit


def test_without_limits_everything_fits() -> None:
    require_quota("lab", Quota(), [job(workers=4096, gpus_per_worker=1)] * 100, Scale(workers=4096))


@pytest.mark.parametrize("scale", [{}, {"workers": 5, "workers_per_node": 2, "gpus_per_worker": 1}, {"workers": 3}])
@pytest.mark.parametrize("sizes", [{}, {"shared_memory": "64Gi", "scratch": "2Ti", "memory_per_worker": "1500Mi"}])
def test_a_job_is_counted_with_what_the_manifest_asks_for(scale: dict[str, int], sizes: dict[str, str]) -> None:
    wanted = Scale.model_validate(scale | sizes)
    submission = Submission(id="a", command="train", name="a", recipe="", scale=wanted, data=())
    manifest = build(submission, Platform(), owner="ada")
    assert manifest.worker is not None
    pod = needs(manifest.worker)
    nodes = manifest.rayjob["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplicas"]
    found = asked(wanted)
    assert found.cpus == nodes * pod["cpu"]
    assert found.gpus == nodes * pod.get("nvidia.com/gpu", 0)
    assert found.memory == nodes * pod["memory"]
    assert found.scratch == nodes * pod["ephemeral-storage"]


def test_shared_memory_and_scratch_use_up_the_quota() -> None:
    with pytest.raises(ForbiddenError, match=r"at most 32Gi of memory.*got 72Gi"):
        require_quota("lab", Quota(memory="32Gi"), [], Scale(shared_memory="64Gi"))
    with pytest.raises(ForbiddenError, match=r"at most 1Ti of scratch.*got 2Ti"):
        require_quota("lab", Quota(scratch="1Ti"), [], Scale(scratch="2Ti"))
    with pytest.raises(OverloadedError, match="uses 50Gi of its 60Gi of scratch"):
        require_quota("lab", Quota(scratch="60Gi"), [job()], Scale())
