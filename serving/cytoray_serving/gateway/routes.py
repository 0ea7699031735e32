"""The routing table: which version of a model answers, and where. Follows aliases, canaries and pipelines.

The registry is polled about every second. A new version of an alias is first loaded on every replica and then takes
over between two requests: no request waits for it, and no answer comes from another version. The same applies if a
model was deleted and registered again with the same number, because versions are also identified by their digest. While
the registry cannot be reached, the known versions stay.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, get_args

from cytoray_analysis.errors import CytorayError, InputError, ModelNotFoundError, RequestError
from cytoray_analysis.kinds import task_kind
from cytoray_services.registry import Registry, exact_reference, load_bundle, parse_reference
from cytoray_services.rollouts.rollout import Kind, Routing, lane, read_routing, share
from cytoray_serving.answers import forms_of
from cytoray_serving.gateway.route import SHARED, Route, Served, Target
from cytoray_serving.schema import ModelStatus
from cytoray_serving.service.warmth import SharedUse

if TYPE_CHECKING:
    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

_FOLLOWED_SECONDS = 600.0  # a reference without requests for so long is looked up again on the next request
_UNKNOWN_SECONDS = 2.0


@dataclass
class _Followed:
    target: Target
    follows: bool
    state: str
    asked: float
    refused: set[str] = field(default_factory=set)
    routing: Routing | None = None
    beside: dict[str, Target] = field(default_factory=dict)  # canary and shadow by version, once they are ready


@dataclass
class _Unknown:
    error: CytorayError
    since: float = field(default_factory=time.monotonic)


class Routes:
    """The routing table of a gateway.

    Parameters
    ----------
    settings
        Location of the registry.
    served
        Models with dedicated replicas.
    pipelines
        References of the models of each pipeline, by its name.
    shared
        Whether shared replicas answer for all other registered models.
    prepare
        Loads a version on all replicas of a deployment; raises if this fails.
    """

    def __init__(
        self,
        settings: Settings,
        served: Sequence[Served],
        pipelines: Mapping[str, Sequence[str]],
        *,
        shared: bool,
        prepare: Callable[[Target], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._registry = Registry.open(settings)
        self._served = tuple(served)
        self._references = {name: one.reference for one in served for name in one.names}
        self._pipelines = dict(pipelines)
        self._shared = shared
        self._prepare = prepare
        self._known: dict[str, _Followed] = {}
        self._unknown: dict[str, _Unknown] = {}
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reported = time.monotonic()

    async def exact(self, model: str, version: str | None) -> tuple[str, ...]:
        """Return the versions of an address in order: exact references or folders.

        Raises
        ------
        ModelNotFoundError, PlatformError
            See :meth:`find`.
        """
        route = await self.find(model, version)
        return (*(one.exact for one in route.before), route.target.exact)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in addresses of models with dedicated replicas, and of pipelines."""
        return (*self._references, *self._pipelines)

    async def find(self, model: str, version: str | None = None, *, keys: tuple[float, float] = (1.0, 1.0)) -> Route:
        """Find the route of an address.

        Parameters
        ----------
        keys
            Two random numbers from 0 to 1, for a canary and for a shadow. 1 for neither.

        Raises
        ------
        ModelNotFoundError
            There is no such model.
        PlatformError
            The registry does not answer, and the model is not known yet.
        """
        if version is None and model in self._pipelines:
            *before, last = [await self._target(self._reference(step)) for step in self._pipelines[model]]
            steps = [one.reference for one in before]
            status = last.status.model_copy(update={"reference": model, "steps": steps})
            return Route(model, version, keys, replace(last, status=status), tuple(before))
        reference = self._reference(model) if version is None else f"{model}/{version}"
        target = await self._target(reference)
        known = self._known[reference]
        if known.routing is None:
            return Route(model, version, keys, target)
        alias = parse_reference(reference).alias
        chosen, mirror = known.routing.version(alias, keys[0]), known.routing.mirror(alias, keys[1])
        canary = known.routing.in_force("canary", alias)
        return Route(
            model,
            version,
            keys,
            known.beside.get(chosen or "", target),
            alias=known.routing.alias(alias),
            watched=canary is not None,
            lane=0 if canary is None else lane(canary, keys[0]),
            shadow=known.beside.get(mirror or ""),
        )

    async def find_segmentation(self, reference: str) -> Target:
        """Find a segmentation model.

        Raises
        ------
        RequestError
            It is not a segmentation model.
        """
        target = await self._target(self._reference(reference))
        if target.status.kind != "labels":
            raise RequestError(
                f"expected a segmentation model, got {reference}, whose answers are of the kind {target.status.kind!r}",
                field="segmentation",
                hint="name a model that was trained for segmentation",
            )
        return target

    async def statuses(self) -> list[ModelStatus]:
        """Describe models with dedicated replicas, pipelines, and other models in use."""
        own = [(await self.find(one.names[0])).target.status for one in self._served]
        pipelines = [(await self.find(name)).target.status for name in self._pipelines]
        shared = [one.target.status for one in self._known.values() if one.target.deployment == SHARED]
        return [*own, *pipelines, *shared]

    def take_shared_use(self) -> list[SharedUse]:
        """Return the models that shared replicas answered for since the last call."""
        since, self._reported = self._reported, time.monotonic()
        asked = [name for name, one in self._known.items() if one.target.deployment == SHARED and one.asked >= since]
        return [SharedUse(tuple(asked))] if asked else []

    async def follow(self) -> None:
        """Poll the registry for every known model, and let new versions of its aliases take over."""
        now = time.monotonic()
        for reference, known in list(self._known.items()):
            if known.target.deployment == SHARED and now - known.asked > _FOLLOWED_SECONDS:
                del self._known[reference]
        registered = [
            (parse_reference(text), known)
            for text, known in self._known.items()
            if known.target.status.version is not None
        ]
        for name in dict.fromkeys(wanted.name for wanted, _ in registered):
            routing = await self._routing(name)
            for wanted, known in registered:
                if wanted.name != name:
                    continue
                if not known.follows:
                    if not isinstance(routing, str):
                        await self._renew(known, routing)
                elif isinstance(routing, str):
                    self._tell(known, routing)
                else:
                    self._tell(known, await self._take_over(known, wanted.alias, routing))

    async def _routing(self, name: str) -> Routing | str:
        """Return the routing in the registry, or its error."""
        try:
            return await asyncio.to_thread(read_routing, self._registry, name)
        except CytorayError as error:
            return _kept(error)

    async def _renew(self, known: _Followed, routing: Routing) -> None:
        """Follow a version whose model was deleted and registered again."""
        version = known.target.status.version or ""
        exact = exact_reference(routing.name, version, routing.digests.get(version, ""))
        if version not in routing.digests or exact == known.target.exact or exact in known.refused:
            return
        try:
            target = await self._ready(exact, known)
        except CytorayError as error:
            if isinstance(error, InputError):
                known.refused = {exact}
            self._tell(known, _kept(error))
        else:
            known.target = target
            self._tell(known, "fixed")

    async def _take_over(self, known: _Followed, alias: str | None, routing: Routing) -> str:
        """Load the version of an alias, its canary and its shadow, and return a status message."""
        current = routing.version(alias, 1.0)
        if current is None:
            return f"keeps the loaded version: {routing.name} has no version with this alias"
        meant = routing.alias(alias) or ""
        numbers = {current} | {one.version for one in routing.running if one.alias == meant}
        wanted = {one: exact_reference(routing.name, one, routing.digests.get(one, "")) for one in numbers}
        known.refused &= set(wanted.values())  # a damaged version is tried once, and again when the alias is set again
        known.beside = {
            version: target for version, target in known.beside.items() if wanted.get(version) == target.exact
        }
        ready = {known.target.exact} | {target.exact for target in known.beside.values()}
        state = "following"
        for version, exact in sorted(wanted.items()):
            if exact in ready | known.refused:
                continue
            try:
                known.beside[version] = await self._ready(exact, known)
            except InputError as error:
                known.refused.add(exact)
                state = _kept(error)
            except CytorayError as error:
                state = _kept(error)
        if current in known.beside:
            known.target = known.beside[current]
            # Recorded for replicas that start later, and for services that start without the registry.
            await asyncio.to_thread(self._registry.resolve_or_known, known.target.status.reference)
        if wanted[current] in known.refused and state == "following":
            state = known.state
        known.routing = routing
        return state

    async def _ready(self, reference: str, known: _Followed) -> Target:
        """Load a version on all replicas."""
        asked = known.target.status.reference
        target = await asyncio.to_thread(self._describe, reference, known.target.deployment, asked)
        await self._prepare(target)
        return target

    @staticmethod
    def _tell(known: _Followed, state: str) -> None:
        if state != known.state:
            log.warning("%s: %s", known.target.status.reference, state)
        known.state = state
        routing, status = known.routing, known.target.status
        said: dict[str, str | None] = {"registry": state}
        if routing is not None:
            alias = parse_reference(status.reference).alias
            said |= {kind: _described(routing, kind, alias) for kind in get_args(Kind)}
        known.target = replace(known.target, status=status.model_copy(update=said))

    async def _target(self, reference: str) -> Target:
        known = self._known.get(reference)
        if known is None:
            async with self._locks[reference]:  # for concurrent requests, only one looks it up
                known = self._known.get(reference) or await self._first_look(reference)
            self._locks.pop(reference, None)
        known.asked = time.monotonic()
        return known.target

    async def _first_look(self, reference: str) -> _Followed:
        unknown = self._unknown.get(reference)
        if unknown is not None and time.monotonic() - unknown.since < _UNKNOWN_SECONDS:
            raise unknown.error
        try:
            deployment = self._deployment(reference)
            target = await asyncio.to_thread(self._describe, reference, deployment)
        except CytorayError as error:
            self._unknown = {
                name: one for name, one in self._unknown.items() if time.monotonic() - one.since < _UNKNOWN_SECONDS
            } | {reference: _Unknown(error)}
            raise
        follows = target.status.version is not None and parse_reference(reference).version is None
        state = "following" if follows else "fixed"
        target = replace(target, status=target.status.model_copy(update={"registry": state}))
        known = self._known[reference] = _Followed(target, follows, state, time.monotonic())
        return known

    def _reference(self, model: str) -> str:
        """Return the reference of a name in an address; ``nuclei@3`` is version 3."""
        if model in self._references:
            return self._references[model]
        name, _, rest = model.partition("@")
        return f"{name}/{rest}" if rest.isdigit() else model

    def _deployment(self, reference: str) -> str:
        own = [one.reference for one in self._served]
        if reference in own:
            return reference
        try:
            name = parse_reference(reference).name
        except RequestError as error:
            raise ModelNotFoundError(
                f"expected a model such as {', '.join(self.names) or 'nuclei@champion'}, got {reference!r}",
                field="model",
                hint="GET /models lists the served models",
            ) from error
        of_the_model = [one for one in own if one.partition("@")[0].partition("/")[0] == name]
        if of_the_model:
            return of_the_model[0]
        if not self._shared:
            raise ModelNotFoundError(
                f"expected one of the served models {', '.join(sorted(self.names))}, got {reference!r}",
                field="model",
                hint="GET /models lists the served models",
            )
        return SHARED

    def _describe(self, reference: str, deployment: str, asked: str | None = None) -> Target:
        """Fetch a version once for all replicas on this node, and describe it."""
        bundle, version = load_bundle(reference, self._settings, known=True)
        spec = bundle.spec
        kind = task_kind(spec.task.name).truth
        status = ModelStatus(
            name=spec.name if version is None else version.name,
            version=None if version is None else version.version,
            digest=bundle.digest,
            reference=asked or reference,
            task=spec.task.name,
            kind=kind,
            media_types=[form.media_type for form in forms_of(kind).values()],
            axes=spec.input.axes,
            channels=list(spec.input.channels),
            grey_as_rgb=spec.input.grey_as_rgb,
            pixel_size=spec.input.pixel_size,
            loaded=datetime.now(UTC).isoformat(timespec="seconds"),
            registry="following",
        )
        if version is None:
            return Target(reference, reference, deployment, status)
        return Target(version.reference, version.exact_reference, deployment, status)


def _described(routing: Routing, kind: Kind, alias: str | None) -> str | None:
    rollout = routing.rollout(kind, alias)
    return None if rollout is None else f"{routing.name}/{rollout.version}: {share(rollout):.0%}"


def _kept(error: Exception) -> str:
    """Return why the known version stays, in one line, because callers can read it."""
    lines = str(error).splitlines() or [type(error).__name__]
    return f"keeps the loaded version: {lines[0]}"
