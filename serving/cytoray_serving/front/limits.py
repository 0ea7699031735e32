"""The limits of the front of a service, passed to its parts through the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cytoray_analysis.errors import PlatformError

LIMITS = "CYTORAY_FRONT_LIMITS"
"""Environment variable: the limits as JSON; absent for the defaults."""
SECRET = "CYTORAY_FRONT_SECRET"  # noqa: S105 - the variable's name
"""Environment variable: secret that the proxy adds to requests for the gateways; absent disables the check."""
HOST = "CYTORAY_FRONT_HOST"
"""Environment variable: address of the proxy; absent for the address that Ray Serve sets."""
ADDRESS = "CYTORAY_GATEWAY_ADDRESS"
"""Environment variable: address of gRPC at the gateways; absent for every address of the node."""
HEADER = "X-Cytoray-Front"
"""The header, and the gRPC metadata, that carries the secret from the proxy to a gateway."""


class FrontLimits(BaseModel):
    """Limits that prevent one caller from blocking all others.

    Attributes
    ----------
    header_seconds
        Timeout for the headers of a request.
    idle_seconds
        Timeout without a byte sent or received during a request or its answer.
    slow_kilobytes
        Minimum rate per second of a body or an answer after the first half minute.
    connections
        Maximum number of open connections from one address; null for no limit.
    wrong_tokens
        Maximum rate per second from one address; then all its requests are refused for a moment; null for no limit.
    trusted_proxies
        Addresses or networks, such as ``10.0.0.0/8``, of load balancers whose ``X-Forwarded-For`` is trusted. Their
        connections are not limited; concurrent requests are, by the forwarded address.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    header_seconds: int = Field(default=10, ge=1)
    idle_seconds: int = Field(default=60, ge=1)
    slow_kilobytes: float = Field(default=16.0, gt=0)
    connections: int | None = Field(default=256, ge=1)
    wrong_tokens: int | None = Field(default=50, ge=1)
    trusted_proxies: tuple[str, ...] = ()

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ip_network(one, strict=False)) for one in proxies)


@dataclass(frozen=True)
class Front:
    """Settings of a process from its environment: the limits, the secret of the instance, and the address."""

    limits: FrontLimits
    secret: str | None = None
    host: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Front:
        """Read the environment.

        Raises
        ------
        PlatformError
            The secret has characters that are not allowed in the configuration of HAProxy.
        """
        text = environment.get(LIMITS)
        limits = FrontLimits.model_validate_json(text) if text else FrontLimits()
        secret = environment.get(SECRET) or None
        if secret is not None and not re.fullmatch(r"[A-Za-z0-9_-]+", secret):
            raise PlatformError(
                f"expected letters, digits, - and _ in {SECRET}, got other characters",
                field=SECRET,
                hint="create another one: openssl rand -hex 32",
            )
        return cls(limits, secret, environment.get(HOST) or None)

    def variables(self) -> dict[str, str]:
        """Return what :meth:`of` reads."""
        found = {LIMITS: self.limits.model_dump_json(), SECRET: self.secret, HOST: self.host}
        return {name: value for name, value in found.items() if value}
