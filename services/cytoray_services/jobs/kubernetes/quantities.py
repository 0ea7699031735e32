"""Amounts as Kubernetes writes them, such as 500m and 16Gi: read, added up, written."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_UNITS = (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


def quantity(text: str | int | float | Decimal) -> Decimal:
    """Read an amount.

    Raises
    ------
    ValueError
        It is none.
    """
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(text))  # type: ignore[no-untyped-call]


def total(*amounts: str) -> str:
    """Add up amounts of memory."""
    return written(sum((quantity(one) for one in amounts), Decimal(0)))


def written(amount: Decimal) -> str:
    """Write an amount in the largest unit that takes it whole."""
    for name, size in _UNITS:
        if amount >= size and amount % size == 0:
            return f"{int(amount // size)}{name}"
    if amount == amount.to_integral_value():
        return str(int(amount))
    return f"{int((amount * 1000).to_integral_value(rounding='ROUND_UP'))}m"


def needs(pod: Mapping[str, Any], kind: str = "requests") -> dict[str, Decimal]:
    """Add up what the containers of a pod ask for (``requests``) or may take (``limits``)."""
    added: dict[str, Decimal] = {}
    for container in pod["containers"]:
        for name, amount in ((container.get("resources") or {}).get(kind) or {}).items():
            added[name] = added.get(name, Decimal(0)) + quantity(amount)
    return added
