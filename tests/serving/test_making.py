"""What a gateway does for callers before their questions wait: few at a time, counted, and let go of."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cytoray_analysis.errors import CytorayError, OverloadedError
from cytoray_services.settings import load_settings
from cytoray_services.storage.allowed import Allowed
from cytoray_services.tokens.access import Caller
from cytoray_serving.front.entrance import Entrance
from cytoray_serving.gateway.making import Making
from cytoray_serving.gateway.waiting import Waiting
from cytoray_serving.messages import Answer, Question
from cytoray_serving.service.assembly import Assembled
from cytoray_serving.service.config import RequestLimits
from serving_in_process import InProcess, config_of, in_process
from serving_samples import noise, tiff_bytes

MEGABYTE = 2**20
ADA, BOB = Caller("ada", ("predict",), None, "0"), Caller("bob", ("predict",), None, "1")


class Busy(InProcess):
    """Replicas that answer when the test lets them; they note the questions that they hold."""

    def __init__(self) -> None:
        super().__init__(load_settings())
        self.held: list[Question] = []
        self.go_on = threading.Event()

    async def answer(self, reference: str, question: Question, given: Any) -> Answer | CytorayError:
        self.held.append(question)
        while not self.go_on.is_set():
            await asyncio.sleep(0.01)
        return await super().answer(reference, question, given)


@pytest.fixture
def replicas() -> Busy:
    return Busy()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Give a file of 4 MB whose image is small."""
    path = tmp_path / "image.tif"
    path.write_bytes(tiff_bytes(noise(64, 64)) + bytes(4 * MEGABYTE))
    return path


@pytest.fixture
def service(bundle_folder: Path, replicas: Busy, tmp_path: Path) -> Assembled:
    limits = RequestLimits(body_megabytes=8, bodies_megabytes=16, waiting_megapixels=1e6)
    config = config_of([str(bundle_folder)], shared=None, limits=limits, allowed=Allowed(roots=(tmp_path,)))
    return in_process(load_settings(), config, replicas)


def asking(
    service: Assembled, path: str, requests: int, meanwhile: Callable[[], Awaitable[None]], **options: Any
) -> list[httpx.Response]:
    """Send so many requests at the same time, and do something meanwhile."""

    async def send() -> list[httpx.Response]:
        entrance = Entrance(service.api, secret=None, rules=lambda: service.rules)
        transport = httpx.ASGITransport(entrance, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            sent = [asyncio.ensure_future(client.post(path, **options)) for _ in range(requests)]
            await meanwhile()
            return await asyncio.gather(*sent)

    return asyncio.run(send())


async def until(true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 30
    while not true():
        assert time.monotonic() < ends, "that did not happen"
        await asyncio.sleep(0.02)


@pytest.mark.slow
def test_what_is_fetched_is_held_within_the_bytes_of_the_gateway(
    service: Assembled, replicas: Busy, image: Path
) -> None:
    seen: list[int] = []

    async def look() -> None:
        await until(lambda: len(replicas.held) >= 3)
        await asyncio.sleep(2)
        seen.extend((sum(len(one.image) for one in replicas.held), service.rules.bodies.bytes))
        replicas.go_on.set()

    body = {"image": image.as_uri()}
    answers = asking(service, "/models/nuclei/predict", 12, look, json=body)
    held, counted = seen
    assert held <= counted <= 16 * MEGABYTE
    codes = [answer.status_code for answer in answers]
    assert set(codes) == {200, 429}
    assert all("Retry-After" in answer.headers for answer in answers if answer.status_code == 429)
    assert service.rules.bodies.bytes == 0
    assert [one.status_code for one in asking(service, "/models/nuclei/predict", 1, _nothing, json=body)] == [200]


def test_what_tensors_become_is_held_within_the_bytes_of_the_gateway(service: Assembled, replicas: Busy) -> None:
    pixels = {"name": "image", "shape": [512, 512], "datatype": "FP64", "data": [0] * 2**18}
    seen: list[int] = []

    async def look() -> None:
        await until(lambda: len(replicas.held) >= 2)
        seen.extend((sum(len(one.image) for one in replicas.held), service.rules.bodies.bytes))
        replicas.go_on.set()

    asking(service, "/v2/models/nuclei/infer", 2, look, json={"inputs": [pixels]})  # 2 bytes a number, then 8
    assert seen[1] >= seen[0] >= 4 * MEGABYTE
    assert service.rules.bodies.bytes == 0


async def _nothing() -> None:
    pass


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/models/nuclei/predict", "/v2/models/nuclei/infer"])
def test_few_questions_of_one_caller_are_made_at_a_time(
    service: Assembled, replicas: Busy, image: Path, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now: list[int] = []
    most: list[int] = []

    def make(*arguments: Any) -> Question:
        now.append(0)
        most.append(len(now))
        time.sleep(0.1)
        now.pop()
        return Question(tiff_bytes(np.zeros((8, 8), np.uint8)))

    monkeypatch.setattr("cytoray_serving.gateway.gateway.fetch_question", make)
    monkeypatch.setattr("cytoray_serving.open_inference.translate.question_of", make)
    replicas.go_on.set()
    pixels = {"name": "image", "shape": [1, 1], "datatype": "UINT8", "data": [0]}
    body = {"image": image.as_uri()} if path.endswith("predict") else {"inputs": [pixels]}
    asking(service, path, 12, _nothing, json=body)
    assert len(most) == 12
    assert max(most) <= 2


@pytest.mark.parametrize("name", ["nothing.tif", "no-image.tif"])
def test_a_fetch_that_fails_holds_nothing(service: Assembled, tmp_path: Path, name: str) -> None:
    (tmp_path / "no-image.tif").write_bytes(bytes(MEGABYTE))
    (answer,) = asking(service, "/models/nuclei/predict", 1, _nothing, json={"image": (tmp_path / name).as_uri()})
    assert answer.status_code in (404, 422)
    assert service.rules.bodies.bytes == 0


def test_nothing_is_fetched_for_a_model_that_is_not_there(service: Assembled, image: Path) -> None:
    body = {"image": f"{image.as_uri()}-is-not-there"}
    (answer,) = asking(service, "/models/nucleoli/predict", 1, _nothing, json=body)
    assert (answer.status_code, answer.json()["field"]) == (404, "model")


def test_the_caller_s_share_of_the_queue_counts_while_questions_are_made() -> None:
    making, go_on = Making(Waiting(RequestLimits(waiting_requests=4)), MEGABYTE), threading.Event()

    async def make_all() -> list[object]:
        wait = lambda: go_on.wait(30)  # noqa: E731
        begun = [asyncio.ensure_future(making.run("cells", wait, ADA, fetching=True)) for _ in range(6)]
        await until(lambda: sum(one.done() for one in begun) == 3)
        threading.Timer(0.2, go_on.set).start()
        return await asyncio.gather(
            *begun, making.run("cells", lambda: "bob's", BOB, fetching=True), return_exceptions=True
        )

    *of_ada, of_bob = asyncio.run(make_all())
    assert [isinstance(one, OverloadedError) for one in of_ada] == [False] * 3 + [True] * 3
    assert of_bob == "bob's"


def test_who_goes_away_keeps_the_turn_until_the_thread_is_free() -> None:
    making, go_on, begun = Making(Waiting(RequestLimits()), MEGABYTE), threading.Event(), []

    def work() -> None:
        begun.append(0)
        go_on.wait(30)

    async def leave() -> None:
        tasks = [asyncio.ensure_future(making.run("cells", work, ADA, fetching=True)) for _ in range(10)]
        await until(lambda: len(begun) == 2)
        for task in tasks:
            task.cancel()
        more = asyncio.ensure_future(making.run("cells", work, ADA, fetching=True))
        assert await making.run("cells", lambda: "bob's", BOB, fetching=True) == "bob's"
        await asyncio.sleep(0.2)
        assert len(begun) == 2
        go_on.set()
        await more
        assert all(
            isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True)
        )

    asyncio.run(leave())
