"""The service as one caller may use it; every interface gives its callers no more than this."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from cytoray_analysis.errors import CytorayError, ModelNotFoundError
from cytoray_services.tokens.access import Caller
from cytoray_serving.gateway.dispatch import Dispatch
from cytoray_serving.messages import Answer, Count, Question
from cytoray_serving.schema import ModelStatus

T = TypeVar("T")


class Permitted:
    """See :class:`cytoray_serving.messages.Answering`. Other models are for the caller as if there were none.

    Parameters
    ----------
    dispatch
        Answers all callers.
    caller
        The caller.
    """

    def __init__(self, dispatch: Dispatch, caller: Caller) -> None:
        self._dispatch = dispatch
        self.caller = caller

    async def answer(
        self, model: str, version: str | None, question: Question, *, deadline: float | None = None
    ) -> Answer:
        """Answer one question."""
        require_model(self.caller, model)
        if question.segmentation is not None:
            require_model(self.caller, question.segmentation, field="segmentation")
        return await self._dispatch.answer(model, version, question, deadline=deadline, caller=self.caller)

    @asynccontextmanager
    async def made(
        self, model: str, version: str | None, make: Callable[[ModelStatus, Count], T], *, fetching: bool = False
    ) -> AsyncIterator[T]:
        """Create a question in turn.

        Parameters
        ----------
        fetching
            Whether its bytes are fetched, and refused if there is no room for them. Bytes that were received already
            are counted, so that others are refused.
        """
        making = self._dispatch.making
        with making.bodies.request() as holder:
            count: Count = partial(making.bodies.add if fetching else making.bodies.hold, holder)
            try:
                status = await self.status(model, version)
                made = await making.run(status.name, partial(make, status, count), self.caller, fetching=fetching)
            except CytorayError as error:
                self._dispatch.refused(error)
                raise
            except asyncio.CancelledError:
                self._dispatch.left()
                raise
            yield made

    async def status(self, model: str, version: str | None) -> ModelStatus:
        """Describe one model."""
        require_model(self.caller, model)
        return await self._dispatch.status(model, version)

    async def statuses(self) -> list[ModelStatus]:
        """Describe everything that is served and allowed for the caller."""
        # A pipeline is requested by its own name, but its status has the name of its last model.
        return [
            status
            for status in await self._dispatch.statuses()
            if self.caller.may_ask(status.reference if status.steps else status.name)
        ]


def require_model(caller: Caller, model: str, *, field: str = "model") -> None:
    """Treat a model that is not allowed as one that does not exist.

    Raises
    ------
    ModelNotFoundError
        The token does not allow this model.
    """
    if not caller.may_ask(model):
        raise ModelNotFoundError(
            f"expected a model that the token allows ({', '.join(sorted(caller.models or ()))}), got {model[:200]!r}",
            field=field,
            hint="ask the operator for a token with the scope predict:MODEL",
        )
