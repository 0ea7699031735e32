"""Removes secrets of the operator, such as passwords, from a manifest for submitters."""

from __future__ import annotations

from typing import Any

import yaml

from cytoray_analysis.uris import CUT, without_secrets
from cytoray_services.jobs.kubernetes.manifest import PlainDumper

_LISTS, _MAPPINGS = ("env",), ("env_vars",)  # of variables: in pods, and in Ray's runtime environments


def shown(manifest: str) -> str:
    """Return a manifest without the values of environment variables, any of which may be secret.

    Parameters
    ----------
    manifest
        The YAML of a backend.
    """
    objects = [_cut(one) for one in yaml.safe_load_all(manifest)]
    return yaml.dump_all(objects, Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=120)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [_cut(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {name: _variables(one) if name in (*_LISTS, *_MAPPINGS) else _cut(one) for name, one in value.items()}


def _variables(found: Any) -> Any:
    """Remove the values of variables, but keep references, such as a key of a secret."""
    if isinstance(found, dict):
        return dict.fromkeys(found, CUT)
    return [_cut(one) | ({"value": CUT} if "value" in one else {}) for one in found or []]
