"""Which version of a model answers, and where: aliases, canaries and pipelines, looked up once and followed.

The registry is asked every second or so. A version that is new under an alias is first made ready on every replica and
takes over then, between two requests: nobody waits for it, and no answer comes from a version that was not meant.
While the registry cannot be reached, what is known stays.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cytoray_analysis.errors import CytorayError, InputError, ModelNotFoundError, RequestError
from cytoray_analysis.tasks import truth_of
from cytoray_services.registry import Registry, load_bundle, parse_reference
from cytoray_services.rollouts.rollout import Routing, lane, read_routing, share
from cytoray_serving.answers import FORMS
from cytoray_serving.schema import ModelStatus

if TYPE_CHECKING:
    from cytoray_services.settings import Settings

log = logging.getLogger(__name__)

SHARED = "shared"
_FOLLOWED_SECONDS = 600.0  # a reference that nobody asked for so long is looked up again when somebody does
_UNKNOWN_SECONDS = 2.0


@dataclass(frozen=True)
class Served:
    """One reference with replicas of its own, and the names that it has in addresses, the first being its own.

    Attributes
    ----------
    registered
        Whether the registry knows it; a bundle folder is not.
    """

    reference: str
    names: tuple[str, ...]
    registered: bool = True


@dataclass(frozen=True)
class Target:
    """One version, and the deployment that answers with it.

    Attributes
    ----------
    reference
        ``name/version`` or a bundle folder: what a replica loads.
    deployment
        The reference that the deployment is for, or ``shared``.
    """

    reference: str
    deployment: str
    status: ModelStatus


@dataclass(frozen=True)
class Route:
    """What answers a question.

    Attributes
    ----------
    name, version, keys
        What was asked for: as in the address, and the random numbers.
    target
        The version that its alias points to, or a canary beside it.
    before
        The models of a pipeline that work before it, in order.
    alias
        The alias that was meant; None where it is not followed.
    watched
        Whether a canary stands beside that alias, so that what becomes of the question is to be reported.
    lane
        The lane in which it is answered: 0, or apart from the rest of its version because its time is compared.
    shadow
        A version that is to be asked too, whose answer nobody sees.
    """

    name: str
    version: str | None
    keys: tuple[float, float]
    target: Target
    before: tuple[Target, ...] = ()
    alias: str | None = None
    watched: bool = False
    lane: int = 0
    shadow: Target | None = None


@dataclass
class _Followed:
    target: Target
    follows: bool
    state: str
    asked: float
    refused: set[str] = field(default_factory=set)
    routing: Routing | None = None
    beside: dict[str, Target] = field(default_factory=dict)  # canary and shadow, by version, once they are ready


@dataclass
class _Unknown:
    error: CytorayError
    since: float = field(default_factory=time.monotonic)


class Routes:
    """The routing table of a gateway.

    Parameters
    ----------
    settings
        Where the registry is.
    served
        What has replicas of its own.
    pipelines
        By name, the references of the models that work one after the other.
    shared
        Whether any other registered model is answered by shared replicas.
    prepare
        Makes a version ready on all replicas of a deployment; raises where that fails.
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

    async def exact(self, model: str, version: str | None) -> tuple[str, ...]:
        """Return the versions that answer at an address, in the order of their work: ``name/version`` or folders.

        Raises
        ------
        ModelNotFoundError, PlatformError
            See :meth:`find`.
        """
        route = await self.find(model, version)
        return (*(one.reference for one in route.before), route.target.reference)

    @property
    def names(self) -> tuple[str, ...]:
        """The names in addresses of what has replicas of its own, and of pipelines."""
        return (*self._references, *self._pipelines)

    async def find(self, model: str, version: str | None = None, *, keys: tuple[float, float] = (1.0, 1.0)) -> Route:
        """Find what answers at an address.

        Parameters
        ----------
        keys
            Two random numbers from 0 to 1: whether a canary answers, and whether a shadow is asked too. 1 for neither.

        Raises
        ------
        ModelNotFoundError
            Nothing does.
        PlatformError
            The registry cannot be asked, and nothing is known from before.
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
        canary = known.routing.canary(alias)
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
        """Find a model that finds the objects for another.

        Raises
        ------
        RequestError
            It is no segmentation model.
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
        """Describe what has replicas of its own, the pipelines, and what was loaded beside them."""
        own = [(await self.find(one.names[0])).target.status for one in self._served]
        pipelines = [(await self.find(name)).target.status for name in self._pipelines]
        shared = [one.target.status for one in self._known.values() if one.target.deployment == SHARED]
        return [*own, *pipelines, *shared]

    async def follow(self) -> None:
        """Ask the registry once about every model whose aliases are followed, and let new versions take over."""
        now = time.monotonic()
        for reference, known in list(self._known.items()):
            if known.target.deployment == SHARED and now - known.asked > _FOLLOWED_SECONDS:
                del self._known[reference]
        followed = [(parse_reference(text), known) for text, known in self._known.items() if known.follows]
        for name in dict.fromkeys(wanted.name for wanted, _ in followed):
            routing = await self._routing(name)
            for wanted, known in followed:
                if wanted.name != name:
                    continue
                if isinstance(routing, str):
                    self._tell(known, routing)
                else:
                    self._tell(known, await self._take_over(known, wanted.alias, routing))

    async def _routing(self, name: str) -> Routing | str:
        """Return where the registry says requests go, or why it cannot be asked."""
        try:
            return await asyncio.to_thread(read_routing, self._registry, name)
        except CytorayError as error:
            return _kept(error)

    async def _take_over(self, known: _Followed, alias: str | None, routing: Routing) -> str:
        """Let the version of an alias answer, and make a canary and a shadow ready; returns what to say about it."""
        current = routing.version(alias, 1.0)
        if current is None:
            return f"stays at the loaded version: {routing.name} has no version under this alias"
        meant = routing.alias(alias) or ""
        wanted = {current} | {one.version for one in (routing.canaries.get(meant), routing.shadows.get(meant)) if one}
        known.refused &= wanted  # a damaged version is tried once, and again when it was named anew
        state = "following"
        for version in sorted(wanted - known.beside.keys() - {known.target.status.version} - known.refused):
            try:
                known.beside[version] = await self._ready(f"{routing.name}/{version}", known)
            except InputError as error:
                known.refused.add(version)
                state = _kept(error)
            except CytorayError as error:
                state = _kept(error)
        if current in known.beside:
            known.target = known.beside[current]
            # Remembered for replicas that start from now on, and for services that start without the registry.
            await asyncio.to_thread(self._registry.resolve_or_known, known.target.status.reference)
        if current in known.refused and state == "following":
            state = known.state
        known.beside = {version: target for version, target in known.beside.items() if version in wanted}
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
            meant = routing.alias(parse_reference(status.reference).alias) or ""
            canary, shadow = routing.canaries.get(meant), routing.shadows.get(meant)
            said |= {
                "canary": None if canary is None else f"{routing.name}/{canary.version}: {share(canary):.0%}",
                "shadow": None if shadow is None else f"{routing.name}/{shadow.version}: {shadow.share:.0%}",
            }
        known.target = replace(known.target, status=status.model_copy(update=said))

    async def _target(self, reference: str) -> Target:
        known = self._known.get(reference)
        if known is None:
            async with self._locks[reference]:  # many may ask for it at once, one looks
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
        """Return the reference that a name in an address means; ``nuclei@3`` is version 3."""
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
                hint="GET /models lists what is served",
            ) from error
        of_the_model = [one for one in own if one.partition("@")[0].partition("/")[0] == name]
        if of_the_model:
            return of_the_model[0]
        if not self._shared:
            raise ModelNotFoundError(
                f"expected one of the served models {', '.join(sorted(self.names))}, got {reference!r}",
                field="model",
                hint="GET /models lists what is served",
            )
        return SHARED

    def _describe(self, reference: str, deployment: str, asked: str | None = None) -> Target:
        """Fetch a version once, so that replicas on this node find it there, and describe it."""
        bundle, version = load_bundle(reference, self._settings, known=True)
        spec = bundle.spec
        kind = truth_of(spec.task.name)
        status = ModelStatus(
            name=spec.name if version is None else version.name,
            version=None if version is None else version.version,
            digest=bundle.digest,
            reference=asked or reference,
            task=spec.task.name,
            kind=kind,
            media_types=[form.media_type for form in FORMS[kind].values()],
            axes=spec.input.axes,
            channels=list(spec.input.channels),
            grey_as_rgb=spec.input.grey_as_rgb,
            pixel_size=spec.input.pixel_size,
            loaded=datetime.now(UTC).isoformat(timespec="seconds"),
            registry="following",
        )
        return Target(reference if version is None else version.reference, deployment, status)


def _kept(error: Exception) -> str:
    """Say why the known version stays; one line, because callers of the service see it."""
    lines = str(error).splitlines() or [type(error).__name__]
    return f"stays at the loaded version: {lines[0]}"
