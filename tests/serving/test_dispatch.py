"""Limits on the way from a question to its answer: what waits, how long, and what becomes of it when nobody does."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from cytoray_analysis.errors import (
    CytorayError,
    DeadlineError,
    ImageTooLargeError,
    OverloadedError,
    PlatformError,
    ReplicaLostError,
    UnanswerableError,
)
from cytoray_services.settings import load_settings
from cytoray_serving.gateway.dispatch import _turn
from cytoray_serving.gateway.waiting import Waiting
from cytoray_serving.messages import SUSPECT_SECONDS, Answer, Question
from cytoray_serving.service.assembly import Assembled
from cytoray_serving.service.config import RequestLimits
from serving_in_process import InProcess, config_of, in_process
from serving_samples import GOOD, noise, tiff_bytes


class Slow(InProcess):
    """Replicas that take their time, and know who still waits."""

    def __init__(self, settings: Any, seconds: float) -> None:
        super().__init__(settings)
        self.seconds = seconds
        self.cancelled = 0

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().answer(reference, question, given)


class Mortal(InProcess):
    """Replicas that are lost some times before one answers."""

    def __init__(self, settings: Any, losses: int) -> None:
        super().__init__(settings)
        self.left = losses

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        self.left -= 1
        if self.left >= 0:
            raise ReplicaLostError("the model is restarting")
        return await super().answer(reference, question, given)


class Shared(InProcess):
    """A replica that ends, with all that is at work in it, when it works on a question with a certain image."""

    def __init__(self, settings: Any, deadly: bytes) -> None:
        super().__init__(settings)
        self.deadly, self.ended, self.asked = deadly, 0, Counter[bytes]()
        self.at_work: list[tuple[Question, asyncio.Future[None]]] = []

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        if question.doubted and any(other.doubted for other, _ in self.at_work):
            return OverloadedError("another suspect question is being answered")
        self.asked[question.image] += 1
        life: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.at_work.append((question, life))
        await asyncio.wait([life], timeout=0.1 + SUSPECT_SECONDS * question.doubted)
        if question.image == self.deadly and not life.done():
            self.ended += 1
            for _, other in self.at_work:
                other.cancel()
            self.at_work.clear()
        if life.cancelled():
            lost = ReplicaLostError("the model is restarting")
            lost.at_work = True
            raise lost
        self.at_work.remove((question, life))
        return await super().answer(reference, question, given)


def service_of(bundle: Path, replicas: InProcess, **limits: Any) -> Assembled:
    config = config_of([str(bundle)], shared=None, limits=RequestLimits(**limits))
    return in_process(load_settings(), config, replicas)


def ask(service: Assembled, megapixels: float = 0.006, deadline: float | None = None) -> Any:
    return service.dispatch.answer("nuclei", None, Question(GOOD, megapixels=megapixels), deadline=deadline)


@pytest.mark.slow
def test_a_question_whose_replica_is_lost_is_asked_again(bundle_folder: Path) -> None:
    service = service_of(bundle_folder, Mortal(load_settings(), 3))
    assert asyncio.run(ask(service)).objects > 0


@pytest.mark.slow
def test_of_a_batch_only_the_question_that_ends_its_replica_is_not_answered(bundle_folder: Path) -> None:
    images = [tiff_bytes(noise(64, 64, seed=number)) for number in range(6)]
    replica = Shared(load_settings(), images[2])
    one, other = (service_of(bundle_folder, replica) for _ in range(2))  # two gateways

    async def together() -> list[Any]:
        return await asyncio.gather(
            *(
                (one if number % 2 else other).dispatch.answer("nuclei", None, Question(image))
                for number, image in enumerate(images)
            ),
            return_exceptions=True,
        )

    outcomes = asyncio.run(together())
    assert isinstance(outcomes.pop(2), UnanswerableError)
    assert all(isinstance(outcome, Answer) for outcome in outcomes), outcomes
    assert replica.ended == 2
    assert replica.asked[images[2]] == 2


class EndingDuringRefusal(InProcess):
    """Replicas of which the first one ends by a question, and the second one while it refuses a suspect question."""

    def __init__(self, settings: Any) -> None:
        super().__init__(settings)
        self.ended = 0

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        if self.ended == 2:
            return await super().answer(reference, question, given)
        self.ended += 1
        lost = ReplicaLostError("the model is restarting")
        lost.at_work = True
        raise lost


@pytest.mark.slow
def test_a_question_that_was_only_refused_when_its_replica_ended_is_answered(bundle_folder: Path) -> None:
    """Fault of the past: a replica that ended by one suspect question made another one, just refused, unanswerable."""
    replicas = EndingDuringRefusal(load_settings())
    assert asyncio.run(ask(service_of(bundle_folder, replicas))).objects > 0
    assert replicas.ended == 2


@pytest.mark.slow
def test_a_doubted_question_that_takes_long_holds_no_other_up(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cytoray_serving.gateway.dispatch._ALONE_SECONDS", 0.05)
    lock = asyncio.Lock()

    async def long() -> None:
        async with _turn(lock):
            await asyncio.sleep(1)

    async def short() -> None:
        await asyncio.sleep(0.01)
        async with asyncio.timeout(0.5), _turn(lock):
            pass

    async def both() -> None:
        await asyncio.gather(long(), short())

    asyncio.run(both())
    assert not lock.locked()


def test_a_question_is_not_asked_for_ever(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cytoray_serving.gateway.dispatch._TRIES", 3)
    replicas = Mortal(load_settings(), 100)
    with pytest.raises(ReplicaLostError):
        asyncio.run(ask(service_of(bundle_folder, replicas)))
    assert replicas.left == 97


def test_a_deadline_cancels_the_work(bundle_folder: Path) -> None:
    replicas = Slow(load_settings(), 30)
    with pytest.raises(DeadlineError, match=r"0\.05 s"):
        asyncio.run(ask(service_of(bundle_folder, replicas), deadline=0.05))
    assert replicas.cancelled == 1


@pytest.mark.slow
def test_an_answer_that_takes_longer_than_the_service_allows_is_no_silent_end(bundle_folder: Path) -> None:
    with pytest.raises(PlatformError, match="expected an answer within"):
        asyncio.run(ask(service_of(bundle_folder, Slow(load_settings(), 30), seconds=0.05)))


@pytest.mark.slow
@pytest.mark.parametrize("whole", [True, False])
def test_a_caller_who_goes_away_cancels_the_work_and_leaves_one_line(
    bundle_folder: Path, caplog: pytest.LogCaptureFixture, whole: bool
) -> None:
    replicas = Slow(load_settings(), 30)
    service = service_of(bundle_folder, replicas)

    async def go_away() -> None:
        sent: list[dict[str, Any]] = []
        messages = [{"type": "http.request", "body": GOOD, "more_body": not whole}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await asyncio.sleep(0.1)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/models/nuclei/predict",
            "raw_path": b"/models/nuclei/predict",
            "query_string": b"",
            "headers": [(b"content-length", str(len(GOOD)).encode())],
            "http_version": "1.1",
        }
        await service.api(scope, receive, send)  # type: ignore[arg-type]
        assert sent[0]["status"] == 499

    asyncio.run(asyncio.wait_for(go_away(), 20))
    assert replicas.cancelled == int(whole)
    lines = [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert len(lines) == 1
    assert "the caller disconnected" in lines[0].getMessage()
    assert lines[0].exc_info is None


@pytest.mark.slow
def test_more_than_may_wait_is_refused_with_the_time_to_come_again(bundle_folder: Path) -> None:
    service = service_of(bundle_folder, Slow(load_settings(), 0.3), waiting_requests=2)

    async def three() -> list[httpx.Response]:
        transport = httpx.ASGITransport(service.api)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await asyncio.gather(*(client.post("/models/nuclei/predict", content=GOOD) for _ in range(3)))

    responses = asyncio.run(three())
    assert sorted(one.status_code for one in responses) == [200, 200, 429]
    refused = next(one for one in responses if one.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"] == "OverloadedError"


def test_megapixels_are_what_counts_and_one_request_is_always_taken() -> None:
    waiting = Waiting(RequestLimits(waiting_megapixels=10))
    with waiting.request("nuclei", 50):
        with pytest.raises(OverloadedError, match="10 megapixels"), waiting.request("nuclei", 0.1):
            pass
        with waiting.request("stain", 9):
            assert waiting.megapixels("stain") == 9
    assert waiting.megapixels("nuclei") == 0


def test_the_time_to_come_again_follows_from_how_fast_answers_came(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("cytoray_serving.gateway.waiting.time.monotonic", lambda: now)
    waiting = Waiting(RequestLimits())
    for _ in range(300):  # one megapixel a second
        waiting.answered("nuclei", 1.0)
        now += 1.0
    with waiting.request("nuclei", 40.0):
        assert waiting.retry_after("nuclei") in (20, 21)
    with waiting.request("nuclei", 400.0):
        assert waiting.retry_after("nuclei") == 60


def test_an_image_that_is_too_large_is_refused_by_its_header(bundle_folder: Path) -> None:
    service = service_of(bundle_folder, InProcess(load_settings()))
    with pytest.raises(ImageTooLargeError, match="268 megapixels, got 300"):
        asyncio.run(ask(service, megapixels=300))
