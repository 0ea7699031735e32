"""Quantities of Kubernetes, such as 500m and 16Gi: parse, add up, write."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

_UNITS = (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10))


def quantity(text: str | int | float | Decimal) -> Decimal:
    """Parse a quantity.

    Raises
    ------
    ValueError
        The text is not a quantity.
    """
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(text))  # type: ignore[no-untyped-call]


def total(*amounts: str) -> str:
    """Add up amounts of memory."""
    return written(sum((quantity(one) for one in amounts), Decimal(0)))


def written(amount: Decimal) -> str:
    """Write a quantity in the largest unit that gives a whole number."""
    for name, size in _UNITS:
        if amount >= size and amount % size == 0:
            return f"{int(amount // size)}{name}"
    if amount == amount.to_integral_value():
        return str(int(amount))
    return f"{int((amount * 1000).to_integral_value(rounding='ROUND_UP'))}m"


def needs(pod: Mapping[str, Any], kind: str = "requests") -> dict[str, Decimal]:
    """Add up the ``requests`` or ``limits`` of the containers of a pod."""
    added: dict[str, Decimal] = {}
    for container in pod["containers"]:
        for name, amount in ((container.get("resources") or {}).get(kind) or {}).items():
            added[name] = added.get(name, Decimal(0)) + quantity(amount)
    return added


def reserved(pod: Mapping[str, Any]) -> dict[str, Decimal]:
    """Return the effective request of a pod: of its containers, or of an init container if that is more."""
    added = needs(pod)
    for container in pod.get("initContainers") or []:
        for name, amount in needs({"containers": [container]}).items():
            added[name] = max(added.get(name, Decimal(0)), amount)
    for name, amount in (pod.get("overhead") or {}).items():
        added[name] = added.get(name, Decimal(0)) + quantity(amount)
    return added
