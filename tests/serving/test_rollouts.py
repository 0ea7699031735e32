"""Canaries and shadows as a service lives them: who is asked, what is reported, who answers in the end."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from cytoray_analysis.errors import CytorayError, PlatformError, RequestError
from cytoray_services.registry import Registry
from cytoray_services.rollouts.changes import start_rollout
from cytoray_services.rollouts.controller import Compared, Counted, Observed, RolloutController
from cytoray_services.rollouts.rollout import Limits, read_routing
from cytoray_services.settings import Settings
from cytoray_serving.messages import Answer, Question
from cytoray_serving.service.assembly import Assembled
from serving_in_process import InProcess, config_of, in_process
from serving_samples import GOOD, noise, tiff_bytes

LIMITS = Limits(seconds_per_step=0.0, least_requests=20)


@pytest.fixture
def service(settings: Settings) -> Assembled:
    return in_process(settings, config_of(["nuclei@champion"]))


async def answers(service: Assembled, count: int, body: bytes = GOOD) -> Counter[str | None]:
    versions: Counter[str | None] = Counter()
    for _ in range(count):
        versions[(await service.dispatch.answer("nuclei", None, Question(body))).version] += 1
    return versions


@pytest.mark.slow
def test_a_canary_answers_its_share_and_what_it_does_is_reported(service: Assembled, registry: Registry) -> None:
    start_rollout(registry, "nuclei", "2", steps=(0.3, 1.0))

    async def watched() -> Counter[str | None]:
        await answers(service, 1)  # known, but the registry was not asked about canaries yet
        await service.routes.follow()
        return await answers(service, 200)

    versions = asyncio.run(watched())
    assert 30 <= versions["2"] <= 95
    everything = service.dispatch.take_reports()
    reports = [one for one in everything if isinstance(one, Observed)]
    assert Counter(one.version for one in reports) == versions
    assert all("objects_per_megapixel" in one.outcome.summary for one in reports)
    timed = Counter(one.version for one in reports if one.outcome.timed)
    assert timed["2"] == versions["2"]
    assert 30 <= timed["1"] <= 95
    # The first request was answered before the registry had been asked what its alias is.
    assert [one for one in everything if isinstance(one, Counted)] == [Counted("nuclei", "champion", 200)]
    status = asyncio.run(service.dispatch.status("nuclei", None))
    assert (status.version, status.canary) == ("1", "nuclei/2: 30%")


@pytest.mark.slow
def test_a_canary_against_which_nothing_speaks_becomes_the_champion(service: Assembled, registry: Registry) -> None:
    controller = RolloutController(registry, ["nuclei"])
    start_rollout(registry, "nuclei", "2", steps=(0.5, 1.0), limits=Limits(0.0, 20, drift=1.0, slower=50, slowest=50))
    clock = datetime.now(UTC)

    async def live() -> None:
        nonlocal clock
        await answers(service, 1)
        for _ in range(12):  # at 90 % the other version answers six of sixty
            controller.step(clock)
            await service.routes.follow()
            await answers(service, 60)
            controller.observe(service.dispatch.take_reports())
            clock += timedelta(seconds=60)

    asyncio.run(live())
    routing = read_routing(registry, "nuclei")
    assert routing.aliases["champion"] == "2", routing
    assert [one.state for one in routing.past] == ["promoted"]
    assert asyncio.run(answers(service, 20)) == {"2": 20}


@pytest.mark.slow
def test_a_canary_that_fails_is_withdrawn(settings: Settings, registry: Registry) -> None:
    class Bad(InProcess):
        async def answer(self, reference: str, question: Question, given: object) -> Answer | CytorayError:
            if reference == "nuclei/2":
                raise PlatformError("out of memory")
            return await super().answer(reference, question, given)

    service = in_process(settings, config_of(["nuclei@champion"]), Bad(settings))
    controller = RolloutController(registry, ["nuclei"])
    start_rollout(registry, "nuclei", "2", steps=(0.5, 1.0), limits=LIMITS)

    async def live() -> None:
        await answers(service, 1, GOOD)
        await service.routes.follow()
        controller.step(datetime.now(UTC))
        for _ in range(80):
            try:
                await service.dispatch.answer("nuclei", None, Question(GOOD))
            except PlatformError:
                continue
        controller.observe(service.dispatch.take_reports())
        (after,) = controller.step(datetime.now(UTC))
        assert after.state == "withdrawn"
        await service.routes.follow()
        assert await answers(service, 20) == {"1": 20}

    asyncio.run(live())
    assert read_routing(registry, "nuclei").aliases["champion"] == "1"


@pytest.mark.slow
def test_mistakes_of_callers_speak_against_no_version(service: Assembled, registry: Registry) -> None:
    start_rollout(registry, "nuclei", "2", steps=(0.5, 1.0))

    async def live() -> None:
        await answers(service, 1)
        await service.routes.follow()
        for _ in range(10):
            with pytest.raises((CytorayError, RequestError)):
                await service.dispatch.answer("nuclei", None, Question(GOOD[:200], megapixels=1.0))

    asyncio.run(live())
    assert [one for one in service.dispatch.take_reports() if isinstance(one, Observed)] == []


@pytest.mark.slow
def test_requests_to_another_alias_are_none_of_the_canarys(settings: Settings, registry: Registry) -> None:
    registry.promote("nuclei", "2", "candidate")
    service = in_process(settings, config_of(["nuclei@champion"]))
    start_rollout(registry, "nuclei", "2", steps=(0.3,))

    async def live() -> None:
        for model in ("nuclei", "nuclei@candidate"):
            await service.dispatch.answer(model, None, Question(GOOD))
        await service.routes.follow()
        for _ in range(20):
            await service.dispatch.answer("nuclei@candidate", None, Question(GOOD))

    asyncio.run(live())
    assert [one for one in service.dispatch.take_reports() if isinstance(one, Observed)] == []


@pytest.mark.slow
def test_a_shadow_is_compared_and_heard_by_no_one(service: Assembled, registry: Registry) -> None:
    start_rollout(registry, "nuclei", "2", answers=False, steps=(0.5,))

    async def live() -> Counter[str | None]:
        await answers(service, 1)
        await service.routes.follow()
        versions: Counter[str | None] = Counter()
        for number in range(40):
            versions += await answers(service, 1, tiff_bytes(noise(64, 96, seed=number)))
            await asyncio.sleep(0.03)
        await asyncio.sleep(0.5)
        return versions

    assert asyncio.run(live()) == {"1": 40}
    compared = [one for one in service.dispatch.take_reports() if not isinstance(one, Counted)]
    assert 8 <= len(compared) <= 32
    for one in compared:
        assert isinstance(one, Compared)
        assert one.version == "2"
        assert 0 <= one.agreement["ap50"] <= 1
    status = asyncio.run(service.dispatch.status("nuclei", None))
    assert status.shadow == "nuclei/2: 50%"
