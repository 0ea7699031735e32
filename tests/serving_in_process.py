"""The HTTP application over real models, in this process and without Ray."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx

from cytoray_analysis.errors import CytorayError
from cytoray_serving.exchange import Answer, Question
from cytoray_serving.gateway import create_api
from cytoray_serving.replica import ModelServer
from cytoray_serving.schema import ModelStatus
from serving_samples import LARGEST_BODY

Ask = Callable[..., httpx.Response]


class InProcess:
    """A model server as the gateway calls it."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server

    async def answer(self, question: Question) -> Answer | CytorayError:
        return await self._server.answer(question)

    async def status(self) -> ModelStatus:
        return self._server.status()


def asker(models: dict[str, Any]) -> Ask:
    api = create_api(models, largest_body=LARGEST_BODY)

    def ask(method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(api, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    return ask
