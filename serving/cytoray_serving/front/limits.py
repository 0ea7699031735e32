"""What the front of a service takes at most, and how its parts learn of it: through the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from pydantic import BaseModel, ConfigDict, Field, field_validator

LIMITS = "CYTORAY_FRONT_LIMITS"
"""Variable of the environment: the limits as JSON; absent for the defaults."""
SECRET = "CYTORAY_FRONT_SECRET"  # noqa: S105 - the variable's name
"""Variable of the environment: what the proxy adds to requests, so that gateways know them; absent checks nothing."""
HOST = "CYTORAY_FRONT_HOST"
"""Variable of the environment: the address that the proxy listens on; absent for the one that Serve gives it."""
ADDRESS = "CYTORAY_GATEWAY_ADDRESS"
"""Variable of the environment: where gateways listen for gRPC; absent for every address of the node."""
HEADER = "X-Cytoray-Front"
"""The header, and the gRPC metadata, that carries the secret from the proxy to a gateway."""


class FrontLimits(BaseModel):
    """What keeps one caller from locking out all others.

    Attributes
    ----------
    header_seconds
        In which the headers of a request must have come.
    idle_seconds
        That a caller may neither send nor take a byte while a request or its answer is on the way.
    slow_kilobytes
        A second, which a body, or an answer, must at least come to, after the first half minute.
    connections
        At once from one address; null for any number.
    trusted_proxies
        Addresses or networks, such as ``10.0.0.0/8``, of balancers whose ``X-Forwarded-For`` is believed. Their
        connections are not limited; requests at once are, by the address that they forward.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    header_seconds: int = Field(default=10, ge=1)
    idle_seconds: int = Field(default=60, ge=1)
    slow_kilobytes: float = Field(default=16.0, gt=0)
    connections: int | None = Field(default=256, ge=1)
    trusted_proxies: tuple[str, ...] = ()

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(one, strict=False)) for one in proxies)


@dataclass(frozen=True)
class Front:
    """What a process learns from its environment: the limits, the secret of the instance, and where callers ask."""

    limits: FrontLimits
    secret: str | None = None
    host: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Front:
        """Read the environment."""
        text = environment.get(LIMITS)
        limits = FrontLimits.model_validate_json(text) if text else FrontLimits()
        return cls(limits, environment.get(SECRET) or None, environment.get(HOST) or None)

    def variables(self) -> dict[str, str]:
        """Return what :meth:`of` reads."""
        found = {LIMITS: self.limits.model_dump_json(), SECRET: self.secret, HOST: self.host}
        return {name: value for name, value in found.items() if value}
